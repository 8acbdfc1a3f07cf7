"""The pareto plot: which numbers it takes, which points are on the front, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
from matplotlib.figure import Figure

from mofa_compiler.base.errors import ReportError
from mofa_compiler.report import figures
from mofa_compiler.report.dominance import not_dominated
from mofa_compiler.report.figures import inline_svg
from mofa_compiler.report.summary import summary
from tests.raising import raising
from tests.report.reports import HOSTILE, measured, recovered, report_of, typed
from tests.report.test_drawn_figures import words


def pareto(reports: list[dict[str, Any]], *arguments: Any, **options: Any) -> Figure:
    return figures.pareto([typed(report) for report in reports], *arguments, **options)


@pytest.mark.parametrize(
    ("points", "higher", "expected"),
    [
        ([(1, 3), (2, 2), (3, 1), (3, 3), (2, 4)], False, [0, 1, 2]),
        ([(1, 3), (2, 2), (3, 4)], True, [0, 2]),
        ([(1, 1), (1, 2), (2, 1)], False, [0]),
        ([(1, 1), (1, 1)], False, [0, 1]),
        ([(5, 5)], False, [0]),
    ],
)
def test_the_front_is_what_nothing_dominates(
    points: list[tuple[float, float]], higher: bool, expected: list[int]
) -> None:
    assert not_dominated(points, y_higher=higher) == expected


def test_cost_against_error_with_the_original() -> None:
    drawn = words(inline_svg(pareto([report_of(), report_of("paper-nafnet")], ["ours", "theirs"])))
    assert {"ours", "theirs", "NAFNet", "original", "rewritten", "MACs at 1x3x32x32"} <= set(drawn)
    assert "relative output error" in drawn


def test_times_are_compared_under_common_conditions() -> None:
    reports = [measured(measured(report_of(), 15, "eager"), 12), measured(report_of("paper-nafnet"), 9)]
    drawn = words(inline_svg(pareto(reports, ["a", "b"], y="parameters")))
    assert "ms, xnnpack 1.0, 1 thread, 1x3x32x32, Cortex-A76" in drawn
    with raising(ReportError, "report", "ms"):
        pareto([measured(report_of(), 15, "eager"), reports[1]], x="ms")
    with raising(ReportError, "report", "ms", " b"):
        pareto([reports[0], report_of()], ["a", "b"], x="ms")


def test_times_of_different_runs_are_compared_by_their_ratios() -> None:
    slow, fast = measured(report_of(), 10), measured(report_of("paper-nafnet"), 12)
    slow["measurements"][0] |= {"original_ms": 40.0, "rewritten_ms": 20.0}  # twice as slow a machine, the same ratio
    axes = pareto([slow, fast], ["a", "b"], x="ms", y="parameters").axes[0]
    drawn = sorted(float(line.get_xdata()[0]) for line in axes.lines if line.get_linestyle() == "None")
    assert drawn == pytest.approx([15.0, 18.0, 30.0])
    scaled = "each network: its ratio × the median time of its original"
    assert axes.get_xlabel().endswith(f"\n{scaled}")
    alike = [measured(report_of(), 10), measured(report_of("paper-nafnet"), 12)]
    assert scaled not in pareto(alike, ["a", "b"], x="ms", y="parameters").axes[0].get_xlabel()


def test_networks_of_different_originals_have_fronts_of_their_own_and_it_is_said() -> None:
    cheaper = report_of("paper-nafnet")
    cheaper["after"]["macs"] = cheaper["before"]["macs"] // 2
    reports = [report_of(), cheaper, report_of(depth=3)]
    legends = []
    for axes in ({"x": "macs", "y": "error"}, {"x": "parameters", "y": "macs"}):
        drawn = words(inline_svg(pareto(reports, ["a", "b", "c"], **axes)))
        legends.append([word for word in drawn if "front" in word])
    assert legends == [["pareto front of each original"], []]


def test_quality_is_against_the_ground_truth_where_it_is_known() -> None:
    known = recovered(report_of(), 35.0)
    assert summary(typed(known), "a").rewritten.psnr == 34.0
    assert "PSNR, dB" in words(inline_svg(pareto([known])))
    against = recovered(report_of(), None)
    assert summary(typed(against), "a").psnr_to_original == 34.0
    assert "PSNR to the original's output, dB, on different inputs" in words(
        inline_svg(pareto([against, report_of()], y="psnr"))
    )
    with raising(ReportError, "report", "psnr", " known"):
        pareto([against, known], ["against", "known"], y="psnr")


def test_training_makes_the_error_of_the_rewrite_unknown() -> None:
    with raising(ReportError, "report", "error", "trained"):
        pareto([recovered(report_of(), None)], ["trained"], y="error")


def test_errors_on_different_inputs_are_said_to_be() -> None:
    report, other = report_of(), report_of("paper-nafnet")
    label = "relative output error"
    assert label in words(inline_svg(pareto([report, other], y="error")))
    other["passes"][-1]["verdict"]["measured_on"] = "another input"
    assert f"{label}, on different inputs" in words(inline_svg(pareto([report, other], y="error")))


def test_a_trained_network_without_ground_truth_is_drawn_by_its_size() -> None:
    assert "parameters" in words(inline_svg(pareto([recovered(report_of(), None)], x="parameters")))


@pytest.mark.parametrize(("first", "last"), [(147_240, 147_900), (1_000, 5_000_000), (3, 7)])
def test_no_two_ticks_are_written_alike(first: int, last: int) -> None:
    reports = [report_of(), report_of("paper-nafnet")]
    for report, number in zip(reports, (first, last), strict=True):
        for state in ("before", "after"):
            report[state] |= {"parameters": number, "macs": 1000 * number}
    figure = pareto(reports, ["a", "b"], x="parameters", y="macs")
    figure.canvas.draw()
    for axis in (figure.axes[0].xaxis, figure.axes[0].yaxis):
        written = [label.get_text() for label in axis.get_ticklabels()]
        assert len({*written}) == len(written) > 2


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"x": "flops"}, "there is no axis 'flops': choose of parameters, macs, ms, psnr, error"),
        ({"x": "macs", "y": "macs"}, "both axes are macs"),
    ],
)
def test_axes_that_make_no_sense(axes: dict[str, str], message: str) -> None:
    with pytest.raises(ReportError, match=message):
        pareto([report_of()], **axes)


def test_no_report_and_hostile_names() -> None:
    with raising(ReportError, "report"):
        pareto([])
    hostile = {**report_of(), "model": HOSTILE}
    drawn = words(inline_svg(pareto([hostile] * 20, [f"{HOSTILE}{index}" for index in range(20)])))
    assert sum(word.startswith("down[0]") for word in drawn) >= 20
    assert all(word.isprintable() for word in drawn)
