"""A front as data, in words, as a table and as a picture."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from mofa_compiler.report import figures
from mofa_compiler.report.document import markdown, show
from mofa_compiler.report.document.html import page
from mofa_compiler.report.figures import inline_svg
from mofa_compiler.report.front import document, headline, table
from mofa_compiler.report.priced import SAME, Front
from tests.report.reports import HOSTILE
from tests.report.test_drawn_figures import words

POINTS = [
    ("original", "original", 0.0, 20.0, 100),
    ("exact", "front", 0.0, 15.0, 101),
    ("0.1dB", "front", 0.08, 12.0, 80),
    ("0.2dB", "front", 0.19, 12.5, 70),
    ("0.5dB", "front", 0.45, 9.0, 50),
    ("theirs", "other", 0.7, 11.0, 40),
]


def front_of(points: list[tuple[str, str, float | None, float, int]] = POINTS, measure: str = "loss") -> dict[str, Any]:
    """A front's data, by name, kind, value, ms and MACs."""
    return {
        "schema": "mofa-front/1",
        "model": "Net",
        "measure": measure,
        "held_out": 16,
        "source": "64 crops of photos",
        "degraded": 20.0,
        "original": 31.0,
        "conditions": {
            **{"engine": "onnxruntime", "version": "1.0", "torch": "2.0", "processor": "Cortex-A76"},
            **{"threads": 1, "input": "1x3x32x32"},
        },
        "control": [0.99, 1.02],
        "points": [
            {
                **{"name": name, "kind": kind, "bundle": "" if kind == "original" else name, "limit": None},
                **{"value": value, "ms": ms, "ratio": ms / 20, "interval": [ms / 20 - 0.01, ms / 20 + 0.01]},
                **{"parameters": macs, "macs": macs, "memory": None, "trained": False},
            }
            for name, kind, value, ms, macs in points
        ],
        "notes": [],
    }


def front(*arguments: Any) -> Front:
    return Front.model_validate(front_of(*arguments))


def names(data: Front, every: bool = False) -> list[str]:
    return [str(row[0].text) for row in table(data, every=every).rows]  # type: ignore[union-attr]


def test_what_another_one_beats_is_shown_where_it_is_asked_for() -> None:
    data = front()
    assert [one.name for one in data.best] == ["exact", "0.1dB", "0.5dB"]
    assert names(data) == ["original", "exact", "0.1dB", "0.5dB"]
    assert names(data, every=True) == ["original", "exact", "0.2dB", "0.1dB", "theirs", "0.5dB"]
    text = markdown(document(data))
    assert "0.2dB, theirs" in text and "Not shown" not in markdown(document(data, every=True))


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5), st.integers(1, 3)), min_size=1, max_size=6))
def test_what_is_hidden_is_beaten_by_what_is_shown(drawn: list[tuple[int, int, int]]) -> None:
    points = [(str(number), "front", value / 10, float(ms), macs) for number, (value, ms, macs) in enumerate(drawn)]
    data = front([("original", "original", 0.0, 6.0, 9), *points])
    assert data.best
    for one in data.points:
        same = [other for other in data.best if (other.value, other.macs) == (one.value, one.macs)]
        assert same or any(other.ms <= one.ms and other.value <= one.value for other in data.best)
    for one in data.best:
        assert not any(
            other.ms < one.ms and other.value < one.value
            for other in data.best  # type: ignore[operator]
        )


def test_one_network_within_two_bounds_is_there_once() -> None:
    data = front([*POINTS[:3], ("0.15dB", "front", 0.08, 12.1, 80), ("0.12dB", "front", 0.08, 11.9, 80)])
    assert [one.name for one in data.best] == ["exact", "0.12dB"]


def test_the_sentence_names_both_ends() -> None:
    assert headline(front()) == "From 0.75 of the time for 0.00 dB lost to 0.45 of the time for 0.45 dB lost."
    assert headline(front(POINTS[:2])) == "0.75 of the time for 0.00 dB lost."
    assert headline(front(POINTS[:1])) == "No network within these bounds is faster than the original."
    slower = front([POINTS[0], ("exact", "front", 0.0, 21.0, 100)])
    assert headline(slower) == "No network within these bounds is faster than the original."


@pytest.mark.parametrize(
    ("measure", "values", "shown"),
    [
        ("loss", [0.0, -0.051, None], ["", "-0.05", "not finite"]),
        ("psnr", [SAME, SAME, 45.123], ["", "the same", "45.1"]),
        ("agreement", [1.0, 0.99512, 0.5], ["", "99.51 %", "50.00 %"]),
    ],
)
def test_quality_is_told_in_the_unit_of_the_measure(measure: str, values: list[float | None], shown: list[str]) -> None:
    kinds = ("original", "front", "front")
    points = [
        (f"p{n}", kind, value, 20.0 - n, 9 - n) for n, (kind, value) in enumerate(zip(kinds, values, strict=True))
    ]
    rows = table(front(points, measure), every=True).rows
    assert [row[1] for row in rows] == shown


def test_a_row_has_the_widened_interval_and_what_changed() -> None:
    original, _, found, _ = table(front()).rows
    assert original[2:] == ("20.0 ms", "", "100", "100")
    assert found[2:] == ("12.0 ms", "0.60 (0.58 to 0.62)", "−20 %", "−20 %")


def test_memory_is_there_where_it_is_known() -> None:
    data = front_of()
    data["points"][1]["memory"] = 12.4
    shown = table(Front.model_validate(data))
    assert shown.header[-1] == "MiB" and [row[-1] for row in shown.rows] == ["", "12", "", ""]


def test_it_is_a_table_on_80_columns() -> None:
    data = front_of([(name, kind, value, ms, 10**9 * macs) for name, kind, value, ms, macs in POINTS])
    for one in data["points"]:
        one |= {"memory": 1234.0, "ms": 123.4 * one["ms"]}
    printed = io.StringIO()
    show(document(Front.model_validate(data), every=True), Console(file=printed, width=80))
    lines = printed.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    (row,) = [line for line in lines if line.lstrip().startswith("0.1dB")]
    assert "0.60 (0.58 to 0.62)" in row and "1.48 s" in row and "0.08" in row and "1234" in row


@pytest.mark.parametrize("measure", ["loss", "psnr", "agreement"])
def test_data_comes_back(measure: str) -> None:
    data = front(POINTS, measure)
    assert Front.model_validate(json.loads(json.dumps(data.to_data()))) == data


def test_the_page_has_the_picture_and_no_script_of_anyone_elses() -> None:
    data = front_of([(HOSTILE, *point[1:]) if point[0] == "theirs" else point for point in POINTS])
    data["notes"] = [HOSTILE]
    shown = page(document(Front.model_validate(data), drawn=True, every=True), HOSTILE)
    assert "<svg" in shown and "<b>&网络" not in shown


def test_the_picture_shows_every_network() -> None:
    drawn = words(inline_svg(figures.front(front()), "front"))
    assert {"original", *(name for name, *_ in POINTS), "PSNR gained, dB", "pareto front"} <= set(drawn)


def test_what_is_the_same_stands_a_little_above_the_others() -> None:
    points = [
        ("original", "original", SAME, 20.0, 9),
        ("exact", "front", SAME, 15.0, 9),
        ("45dB", "front", 46.0, 9.0, 5),
    ]
    axes: Any = figures.front(front(points, "psnr")).axes[0]
    heights = {float(line.get_ydata()[0]) for line in axes.lines if line.get_linestyle() == "None"}
    assert heights == {46.0, 51.0}
    alone: Any = figures.front(front(points[:2], "psnr")).axes[0]
    assert {float(line.get_ydata()[0]) for line in alone.lines if line.get_linestyle() == "None"} == {SAME}
