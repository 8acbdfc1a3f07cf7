"""What is said of decisions: what was picked for a layer is not always what it became."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from mofa_compiler.autotune import search
from mofa_compiler.autotune.candidates import ORIGINAL
from mofa_compiler.report import content, decided
from mofa_compiler.report.document import markdown, show
from mofa_compiler.report.page import render
from tests.report.made import made
from tests.report.reports import typed


def test_picks_that_were_carried_out() -> None:
    report = made(10, decided=True)
    report["decisions"]["chosen"] = search.DECIDED
    found = typed(report)
    assert found.decisions and decided.not_kept(found.decisions) == ""
    assert "became" in decided.header(found.decisions)
    assert [*decided.times(found).values()] == pytest.approx([-0.3] * 3)


@pytest.mark.parametrize("chosen", [ORIGINAL, search.LOWERED])
def test_picks_that_were_not_kept_are_no_edits(chosen: str) -> None:
    data = made(10, decided=True)
    data["decisions"]["chosen"] = chosen
    report = typed(data)
    assert report.decisions
    assert decided.times(report) == {}
    sentence = f"not kept: as a whole, '{chosen}' was chosen"
    assert sentence in decided.not_kept(report.decisions)
    page = render(report)
    assert "What was picked layer by layer was not kept" in page
    assert "What was chosen for each group" not in page

    console = Console(file=io.StringIO(), width=200)
    show(content.for_screen(report), console)
    written = markdown(content.for_reading(report))
    for text in (console.file.getvalue(), written):  # type: ignore[attr-defined]
        assert "layer by layer was not kept" in text
        assert "became" not in text


def test_nothing_is_said_of_picks_where_there_are_none() -> None:
    data = made(10, decided=True)
    data["decisions"]["chosen"] = data["decisions"]["layers"][0]["chosen"] = ORIGINAL
    decisions = typed(data).decisions
    assert decisions
    assert decided.not_kept(decisions) == ""
    assert decided.kept(decisions).startswith("3 layers stay what they were")


def test_large_layers_that_stay_are_told_of_with_their_reason() -> None:
    data = made(10, decided=True)
    data["decisions"]["chosen"] = search.DECIDED
    entry = data["decisions"]["layers"][0]
    large, small = (
        {**entry, "paths": [name], "chosen": ORIGINAL, "reason": f"{name} stays"} for name in ("big", "few")
    )
    large["alternatives"] = [{**one, "ms": 100.0} for one in entry["alternatives"]]
    small["alternatives"] = [{**one, "ms": 1e-6} for one in entry["alternatives"]]
    data["decisions"]["layers"] = [small, entry, large]
    found = decided.rows(typed(data).decisions)
    assert [(row[0].split(" ")[0], row[-1]) for row in found] == [
        ("big", "big stays"),
        (entry["paths"][0], entry["reason"]),
    ]


@pytest.mark.parametrize(("control", "said"), [((0.99, 1.01), False), ((0.9, 1.1), True)])
def test_a_busy_machine_is_told_of(control: tuple[float, float], said: bool) -> None:
    data = made(10, decided=True)
    data["decisions"]["networks"] = [{**one, "control": control} for one in data["decisions"]["networks"]]
    assert bool(decided.busy(typed(data).decisions)) == said


def test_what_was_traded_comes_first() -> None:
    data = made(10, decided=True)
    quality = {"measure": "loss", "limit": 0.15, "value": 0.1, "inputs": 16, "source": "photos", "calibrations": 2}
    more = {"degraded": 20.2, "original": 32.0, "rewritten": 31.9, "sentence": "0.10 dB lost on 16 held-out inputs"}
    data["decisions"]["quality"] = {**quality, **more}
    report = typed(data)
    for text in (markdown(content.for_reading(report)), render(report)):
        assert text.index("0.10 dB lost") < text.index("Parameters")
