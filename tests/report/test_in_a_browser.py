"""The page in headless Chromium: what is folded, filtered, sorted and enlarged, at two sizes, with hostile names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import expect

from mofa_compiler.base.spelling import printable
from mofa_compiler.report import page as html
from tests.report.made import HOSTILE, STAGES, made, with_images
from tests.report.reports import typed

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.report.conftest import Open

ROWS = "#edits tbody tr"


def render(report: dict[str, Any], folder: Path | None = None) -> str:
    return html.render(typed(report), folder)


def names(page: Page, rows: str = f"{ROWS}:not([hidden])") -> list[str]:
    """The layers of the rows that a search leaves."""
    texts: list[str] = page.eval_on_selector_all(f"{rows} > th", "cells => cells.map(cell => cell.textContent)")
    return texts


def edits(report: dict[str, Any]) -> list[dict[str, Any]]:
    return [edit for step in report["passes"] for edit in step["edits"]]


@pytest.mark.parametrize("layers", [30, 3000])
@pytest.mark.sample("30")
def test_a_search_leaves_the_lines_with_all_words_and_opens_what_they_are_in(opened: Open, layers: int) -> None:
    report = made(layers)
    page = opened(render(report))
    assert names(page) == [printable(edit["path"]) for edit in edits(report)]
    field = page.locator("input[type=search]")
    field.fill("EXACT enc1.")
    assert names(page) == [edit["path"] for edit in edits(report) if "enc1." in edit["path"]]
    first, second, third = page.locator("#edits > details").all()
    assert not first.is_visible()  # what it rewrote has other names
    assert all(one.locator("tbody tr:not([hidden])").first.is_visible() for one in (second, third))
    field.fill("encoder 2")
    assert names(page) == [printable(edit["path"]) for edit in edits(report) if edit["stage"] == "encoder 2"]
    field.fill("widen-portion")
    assert names(page) == [printable(edit["path"]) for edit in report["passes"][1]["edits"]]
    field.fill("pointwise widen-portion")
    assert page.locator("#edits li:not([hidden])").count() == 2  # the reasons of one pass
    field.fill("")
    assert len(names(page)) == layers
    assert page.locator("details[open]").count() == 0


def test_tables_of_edits_are_sorted_by_a_column(opened: Open) -> None:
    report = made(60, decided=True)
    page = opened(render(report))
    own = "#edits > details:nth-of-type(2) tbody tr"
    page.locator("#edits > details > summary").nth(1).click()
    table = page.locator("#edits > details").nth(1)
    written = report["passes"][1]["edits"]
    for key, label in (("macs", "Δ MACs"), ("parameters", "Δ parameters")):
        rising = [printable(edit["path"]) for edit in sorted(written, key=lambda edit: edit[key])]
        table.get_by_role("button", name=label).click()
        assert names(page, own) == rising
        table.get_by_role("button", name=label).click()
        assert names(page, own)[0] == rising[-1]
        assert page.locator("[aria-sort]").inner_text().startswith(label)


def test_a_stage_of_the_drawing_opens_its_layers(opened: Open) -> None:
    report = made(300)
    page = opened(render(report))
    index = STAGES.index("bottleneck")
    layers = [printable(layer["path"]) for layer in report["layers"] if layer["stage"] == "bottleneck"]
    assert not page.locator(f"#layers-{index}").is_visible()
    page.locator(f"#stage-{index}").click()
    expect(page.locator(f"#layers-{index}")).to_be_visible()
    assert names(page, f"#layers-{index} tbody tr") == layers
    page.locator("a[*|href='#layers-1']").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#layers-1")).to_be_visible()


def test_without_scripts_everything_can_be_read(opened: Open) -> None:
    report = made(30)
    page = opened(render(report), java_script_enabled=False)
    assert names(page) == [printable(edit["path"]) for edit in edits(report)]
    assert not page.locator("input[type=search]").is_visible()
    page.locator("#edits summary").first.click()
    assert page.locator(ROWS).first.is_visible()


def test_all_pictures_of_an_image_are_enlarged_at_once(opened: Open, tmp_path: Path) -> None:
    page = opened(render(with_images(made(10), tmp_path), tmp_path))
    first, second = page.locator(".image").all()
    widths = "all => all.map(one => Math.round(one.clientWidth / one.closest('.pane').clientWidth))"
    assert first.locator("img").evaluate_all(widths) == [1] * 5
    first.get_by_label("4 ×").check()
    assert first.locator("img").evaluate_all(widths) == [4] * 5
    assert second.locator("img").evaluate_all(widths) == [1] * 4
    pane = first.locator(".pane").first
    pane.focus()
    page.keyboard.press("ArrowRight")
    expect(pane).not_to_have_js_property("scrollLeft", 0)
    assert page.locator("img").evaluate_all("all => all.every(one => one.naturalWidth === 24)")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.sample(1)
def test_accessible_and_within_its_width(opened: Open, tmp_path: Path, scheme: str, width: int) -> None:
    report = with_images(made(60, decided=True), tmp_path / "bundle")
    page = opened(render(report, tmp_path / "bundle"), color_scheme=scheme, viewport={"width": width, "height": 900})
    page.locator("input[type=search]").fill("enc")
    page.locator("#stage-1").click()
    found = Axe().run(page).response["violations"]
    serious = [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")]
    assert serious == []
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    with Image.open(tmp_path / "page.png") as picture:
        corner = picture.convert("L").getpixel((1, 1))
        assert picture.width == width
        assert corner > 200 if scheme == "light" else corner < 60


def test_everything_is_printed(opened: Open) -> None:
    page = opened(render(made(60)))
    row = page.locator(ROWS).first
    assert not row.is_visible()
    page.emulate_media(media="print")
    assert row.is_visible() and row.bounding_box()["height"] > 0
    shown = page.locator("thead button").first.evaluate("button => getComputedStyle(button).display")
    assert shown == "contents"  # with a box in it, Chromium does not repeat the header on every page
    assert page.pdf().startswith(b"%PDF")


def test_nothing_of_a_name_comes_to_life(opened: Open) -> None:
    page = opened(render(made(len(HOSTILE) * 3)))
    page.wait_for_timeout(100)
    assert page.title() == "Net<b> rewritten by made & <i>up</i>"
    assert page.locator("img, b, i, u").count() == 0
    assert page.locator("[onmouseover], [onerror]").count() == 0
