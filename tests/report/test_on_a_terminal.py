"""A report on a terminal: no line too wide, every path in full, markup as text, colours where wanted."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest

from tests.report.reports import printed, report_of


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return report_of()


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("verbose", [False, True])
def test_no_line_is_wider_than_the_terminal(report: dict[str, Any], width: int, verbose: bool) -> None:
    lines = printed(report, width, verbose).splitlines()
    assert max(map(len, lines)) <= width


def test_the_summary_stays_on_a_screen_of_80_by_24(report: dict[str, Any]) -> None:
    last = printed(report, 80).splitlines()[-23:]  # the prompt takes one
    start = next(index for index, line in enumerate(last) if line.split() == ["before", "after", "change"])
    assert any(line.startswith("Output error") for line in last[start:])
    assert all(any(step["name"] in line for line in last[start:]) for step in report["passes"])


@pytest.mark.parametrize("width", [80, 120])
def test_verbose_shows_every_path(report: dict[str, Any], width: int) -> None:
    lines = [line.strip() for line in printed(report, width, verbose=True).splitlines()]
    for step in report["passes"]:
        for entry in step["edits"] + step["skips"]:
            assert entry["path"] in lines


@pytest.mark.parametrize("width", [60, 80])
@pytest.mark.parametrize("verbose", [False, True])
def test_long_paths_keep_their_ends(report: dict[str, Any], width: int, verbose: bool) -> None:
    path = "backbone." + ".".join(f"submodule{i}" for i in range(12)) + ".depthwise"
    long = copy.deepcopy(report)
    long["passes"][0]["edits"][0]["path"] = path
    long["passes"][0]["edits"][0]["before"] = "Unheard(of)"
    lines = printed(long, width, verbose).splitlines()
    assert max(map(len, lines)) <= width
    if verbose:
        assert path in "".join(line.strip() for line in lines)
    else:
        assert any(re.fullmatch(r" +backbone\..*….*\.depthwise", line) for line in lines)


def test_groups_are_counted(report: dict[str, Any]) -> None:
    rendered = printed(report, 100)
    assert "   3 × Conv2d(32, k3, bias, depthwise) → PConv2d(32, k3, bias, portion=1/4)\n" in rendered
    assert "       encoders.1.0.conv2, encoders.1.1.conv2, decoders.0.0.conv2\n" in rendered
    assert "   2 × changes the resolution: downs.0, downs.1\n" in rendered


def test_long_signatures_break_before_a_part(report: dict[str, Any]) -> None:
    lines = [line.strip() for line in printed(report, 76, verbose=True).splitlines()]
    assert "+ Upsample(x2, bilinear)" in lines


def test_markup_in_names_is_text(report: dict[str, Any]) -> None:
    strange = copy.deepcopy(report)
    strange["passes"][0]["edits"][0]["path"] = "a[bold]b[/x]"
    assert "a[bold]b[/x]" in printed(strange, 80, verbose=True)


def test_colours_only_where_wanted(report: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[" in printed(report, 80, colour=True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert not re.search(r"\x1b\[[\d;]*3\dm", printed(report, 80, colour=True))
    assert "\x1b" not in printed(report, 80)
