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
