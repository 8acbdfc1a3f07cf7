"""The page in headless Chromium: sorting, filtering, stages, zoom, at three sizes, with names that mean harm."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import expect

from mofa_compiler.base.spelling import printable
from mofa_compiler.report.html import page as html
from mofa_compiler.report.html import tables
from tests.report.html.made import HOSTILE, STAGES, made, with_images
from tests.report.reports import typed

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.report.html.conftest import Open

ROWS = "table.edits tbody tr"


def render(report: dict[str, Any], folder: Path | None = None) -> str:
    return html.render(typed(report), folder)


def column(page: Page, number: int) -> list[str]:
    """The texts of one column of the edits that are shown, from 1."""
    texts: list[str] = page.eval_on_selector_all(
        f"{ROWS} > :nth-child({number})", "cells => cells.map(cell => cell.textContent)"
    )
    return texts


def edits(report: dict[str, Any]) -> list[dict[str, Any]]:
    return [edit for step in report["passes"] for edit in step["edits"]]


@pytest.mark.parametrize("layers", [10, 300, 3000])
@pytest.mark.sample("10")
def test_sorting_and_filtering(opened: Open, layers: int) -> None:
    report = made(layers, decided=True)
    page = opened(render(report))
    assert page.title() == "Net<b> rewritten by made & <i>up</i>"
    page.get_by_role("button", name="Δ MACs").click()
    if layers > 50:
        page.get_by_role("button", name="Show all", exact=True).click()
    expect(page.locator(ROWS)).to_have_count(layers)
    everything = edits(report)
    rising = sorted(everything, key=lambda edit: edit["macs"])
    assert column(page, 1) == [printable(edit["path"]) for edit in rising]
    page.get_by_role("button", name="Δ MACs").click()
    assert column(page, 1)[0] == printable(rising[-1]["path"])
    assert page.locator("th[data-key=macs]").get_attribute("aria-sort") == "descending"
    page.get_by_role("button", name="Δ MACs").click()
    assert column(page, 1)[0] == printable(everything[0]["path"])

    page.locator("input[name=words]").fill("PCONV2D enc")
    chosen = [e for e in everything if "PConv2d" in e["after"] and "enc" in e["path"] + (e["stage"] or "")]
    assert page.locator("#shown").inner_text().startswith(f"{len(chosen)} of {layers} edits: ")
    page.locator("select[name=exact]").select_option("exact")
    passes = {edit["path"]: step["exact"] for step in report["passes"] for edit in step["edits"]}
    chosen = [edit for edit in chosen if passes[edit["path"]]]  # one that is removed by an exact pass is exact
    assert column(page, 1) == [printable(edit["path"]) for edit in chosen[:50]]
    page.get_by_role("button", name="Clear filters").click()
    expect(page.locator("#shown")).to_contain_text(re.compile(f"^{layers} edits"))


@pytest.mark.slow
def test_of_three_thousand_edits_a_sort_lays_out_a_part_at_once_and_the_rest_later(opened: Open) -> None:
    page = opened(render(made(3000)))
    rows_after_a_sort = """() => {
        document.querySelector("th[data-key] button").click();
        return document.querySelectorAll("ROWS").length;
    }""".replace("ROWS", ROWS)
    assert page.evaluate(rows_after_a_sort) < 1000
    page.get_by_role("button", name="Show all", exact=True).click()
    expect(page.locator(ROWS)).to_have_count(3000)
    assert page.evaluate(rows_after_a_sort) < 3000
    expect(page.locator(ROWS)).to_have_count(3000)


def test_a_stage_lists_its_layers_and_filters_the_edits(opened: Open) -> None:
    report = made(300)
    page = opened(render(report))
    index = STAGES.index("bottleneck")
    block = page.locator(f"#stage-{index}")
    block.hover()
    layers = [layer["path"] for layer in report["layers"] if layer["stage"] == "bottleneck"]
    assert page.locator("#panel li code").all_text_contents() == [printable(path) for path in layers]
    became = {
        layer["path"]: form for layer, (form, _) in zip(report["layers"], tables.became(typed(report)), strict=True)
    }
    forms = [became[path] for path in layers if became[path]]
    assert forms and page.locator("#panel li strong").all_text_contents() == forms
    assert page.locator("#panel li small").first.inner_text() == "51.2 k MACs"

    chosen = [edit for edit in edits(report) if edit["stage"] == "bottleneck"]
    block.click()
    assert column(page, 1) == [printable(edit["path"]) for edit in chosen]
    assert f"{len(chosen)} of 300 edits: those of stage bottleneck." in page.locator("#shown").inner_text()
    assert page.locator("select[name=stage]").input_value() == "bottleneck"
    assert block.get_attribute("aria-pressed") == "true"
    reasons = tables.refusals(typed(report))
    met = [index for index, one in enumerate(reasons) if "bottleneck" in one["stages"]]
    visible = page.locator("tr[data-refusal]:visible")
    assert [row.get_attribute("data-refusal") for row in visible.all()] == [str(index) for index in met]
    assert page.locator("#left").inner_text() == f"{len(met)} of {len(reasons)} reasons: those met in stage bottleneck."
    page.get_by_role("button", name="Show all edits").click()
    assert (visible.count(), page.locator("#left").inner_text()) == (len(reasons), "")
    assert page.locator("#shown").inner_text() == "300 edits, the first 50 are shown."
    assert block.get_attribute("aria-pressed") == "false"


def test_stages_with_the_keyboard_alone(opened: Open) -> None:
    page = opened(render(made(30)))
    block = page.locator("#stage-1")
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "stage-1":
            break
    assert page.locator("#panel h4").inner_text() == "encoder 1"
    page.keyboard.press("Enter")
    assert set(column(page, 2)) <= {"encoder 1"}
    assert block.get_attribute("aria-pressed") == "true"
    page.keyboard.press("Space")
    assert len(column(page, 2)) == 30
    button = page.locator("table.stages").get_by_role("button", name="decoder 1")
    button.focus()
    page.keyboard.press("Enter")
    assert set(column(page, 2)) == {"decoder 1"}


def test_rows_of_the_script_are_those_of_the_template(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    report = made(60, decided=True)
    shown = "rows => rows.map(row => row.innerHTML.replaceAll(/ (scope|tabindex)=.*?>/g, '>'))"
    without = opened(render(report), java_script_enabled=False)
    written = without.eval_on_selector_all(ROWS, shown)
    monkeypatch.setattr(html, "ROWS", 0)
    page = opened(render(report))
    page.get_by_role("button", name="Show all", exact=True).click()
    assert page.eval_on_selector_all(ROWS, shown) == [row.replace("\n", "") for row in written]


def test_long_lists_of_refusals_are_completed(opened: Open) -> None:
    report = made(900)
    page = opened(render(report))
    entry = page.locator("tr[data-refusal]").first
    entry.locator("summary").click()
    skips = [
        skip for skip in report["passes"][0]["skips"] if skip["reason"] == report["passes"][0]["skips"][0]["reason"]
    ]
    assert len(skips) > html.LISTED
    assert entry.locator("li code").all_text_contents() == [printable(skip["path"]) for skip in skips]


def test_lists_that_had_to_be_left_out_are_not_missed_in_silence(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "DATA", 1)
    page = opened(render(made(900)))
    page.locator("#refusals summary").first.click()
    expect(page.locator("#refusals .rest").first).to_contain_text("more, in report.json")
    page.locator("#stage-1").focus()
    expect(page.locator("#panel")).to_contain_text("Its layers are in report.json.")
    assert "layer" not in page.locator("#stage-1").get_attribute("aria-label")


def test_without_scripts_everything_can_be_read(opened: Open) -> None:
    report = made(30)
    page = opened(render(report), java_script_enabled=False)
    assert column(page, 1) == [printable(edit["path"]) for edit in edits(report)]
    assert not page.locator("input[name=words]").is_visible()
    assert page.locator("tr[data-refusal]").count() == 6


def test_the_zoom_is_the_same_in_all_pictures(opened: Open, tmp_path: Path) -> None:
    report = with_images(made(10), tmp_path / "bundle")
    page = opened(render(report, tmp_path / "bundle"))
    first, second = page.locator(".image").all()
    # The matrix, moves being in hundredths of the width: panes may differ by a part of a pixel.
    where = """panes => panes.map(pane => {
        const { a, d, e, f } = new DOMMatrix(getComputedStyle(pane.querySelector("img")).transform);
        return [a, d, ...[e, f].map(move => Math.round(100 * move / pane.clientWidth))].join(" ");
    })"""
    assert set(first.locator(".pane").evaluate_all(where)) == {"1 1 0 0"}
    first.locator(".pane").nth(2).focus()
    page.keyboard.press("+")
    page.keyboard.press("+")
    page.keyboard.press("ArrowRight")
    assert set(first.locator(".pane").evaluate_all(where)) == {"2 2 -10 0"}
    assert set(second.locator(".pane").evaluate_all(where)) == {"1 1 0 0"}
    first.locator("input").fill("3")
    assert first.locator("output").inner_text() == "8 ×"
    first.get_by_role("button", name="Whole picture").click()
    assert set(first.locator(".pane").evaluate_all(where)) == {"1 1 0 0"}
    assert page.locator(".pane img").evaluate_all("all => all.every(one => one.naturalWidth === 24)")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.sample(1)
def test_accessible_and_within_its_width(opened: Open, tmp_path: Path, scheme: str, width: int) -> None:
    report = with_images(made(60, decided=True), tmp_path / "bundle")
    page = opened(render(report, tmp_path / "bundle"), color_scheme=scheme, viewport={"width": width, "height": 900})
    page.locator("#stage-1").focus()
    found = Axe().run(page).response["violations"]
    serious = [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")]
    assert serious == []
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    with Image.open(tmp_path / "page.png") as picture:
        corner = picture.convert("L").getpixel((1, 1))
        assert picture.width == width
        assert corner > 200 if scheme == "light" else corner < 60


def test_everything_is_opened_to_be_printed(opened: Open) -> None:
    report = made(300)
    page = opened(render(report))
    page.get_by_role("button", name="Show 200 more").click()
    assert len(column(page, 1)) == 250
    assert page.get_by_role("button", name="Show 200 more").count() == 0
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert len(column(page, 1)) == 300
    assert page.locator("details:not([open])").count() == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert len(column(page, 1)) == 50
    assert page.locator("details[open]").count() == 0
    page.emulate_media(media="print")
    shown = page.locator("table.edits thead button").first.evaluate("button => getComputedStyle(button).display")
    assert shown == "contents"  # with a box in it, Chromium does not repeat the header on every page
    assert page.pdf().startswith(b"%PDF")


def test_nothing_of_a_name_comes_to_life(opened: Open) -> None:
    page = opened(render(made(len(HOSTILE) * 3)))
    page.wait_for_timeout(100)
    assert page.title() == "Net<b> rewritten by made & <i>up</i>"
    assert page.locator("img, b:not([aria-label]), i, u").count() == 0
    assert page.locator("[onmouseover], [onerror]").count() == 0
