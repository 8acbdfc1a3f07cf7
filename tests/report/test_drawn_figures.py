"""The figures: what each one shows, whatever the network is like and whatever its names hold."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from torch import nn

from mofa_compiler import apply
from mofa_compiler.base.words import signed
from mofa_compiler.report import text
from mofa_compiler.report.figures import flops, inline_svg, roadmap, save, unet
from mofa_compiler.report.figures.style import COLOURS
from mofa_compiler.report.model import Step
from mofa_compiler.report.stages import outcomes
from tests.report.reports import HOSTILE, pass_of, report_of, typed

DRAWN = {"flops": flops, "roadmap": roadmap, "unet": unet}


@pytest.fixture
def report() -> dict[str, Any]:
    return report_of()


@pytest.fixture(scope="module")
def plain() -> dict[str, Any]:
    """Of a network that is no U-Net, has one stage, and where nothing is rewritten."""
    return apply(nn.Sequential(nn.Conv2d(3, 3, 1)), "mofa", torch.rand(1, 3, 8, 8)).report


def words(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def many(report: dict[str, Any], number: int) -> dict[str, Any]:
    """The report with `number` stages in a line, each huge, under names that could break a drawing."""
    large = copy.deepcopy(report)
    large["structure"] = {**large["structure"], "passes": [], "skips": [], "aside": []}
    stage = large["before"]["stages"][0]
    names = [f"{HOSTILE}{index}" for index in range(number)]
    for state in ("before", "after"):
        large[state]["stages"] = [{**stage, "name": name, "macs": 10**30, "vanilla": 10**33} for name in names]
    large["anatomy"] = {"is_unet": False, "reason": HOSTILE, "stages": []}
    large["model"] = large["roadmap"]["name"] = large["passes"][0]["name"] = HOSTILE
    return large


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize("source", ["report", "plain", "many", "empty"])
@pytest.mark.sample(4)
def test_every_network_has_every_figure(
    request: pytest.FixtureRequest, report: dict[str, Any], tmp_path: Path, name: str, source: str
) -> None:
    changed = {
        "many": lambda: many(report, 60),
        "empty": lambda: {**report, "passes": [], "after": report["before"]},
    }
    data = changed[source]() if source in changed else request.getfixturevalue(source)
    save(lambda: DRAWN[name](typed(data)), tmp_path / "figure.svg")
    drawn = words((tmp_path / "figure.svg").read_text(encoding="utf-8"))
    assert all(word.isprintable() for word in drawn)
    assert sum(data["model"][:12] in word for word in drawn) == (0 if source == "many" else 1)
    if name == "roadmap":
        assert len([word for word in drawn if re.match(r"\d+\. ", word)]) == len(data["passes"])
    else:
        assert sum("down[0]" in word for word in drawn) >= (60 if source == "many" else 0)


def test_the_roadmap_tells_what_each_pass_added_or_saved(report: dict[str, Any]) -> None:
    drawn = words(inline_svg(roadmap(typed(report))))
    before = report["before"]
    for index, step in enumerate(report["passes"], 1):
        assert f"{index}. {step['name']}" in drawn
        for key in ("parameters", "macs"):
            after, change = step["after"][key], step["after"][key] - before[key]
            assert f"{text.quantity(after)} ({signed(change)})" in drawn
        before = step["after"]
        if step["verdict"]["psnr"] is not None:
            assert f"{step['verdict']['psnr']:.1f}" in drawn


def test_flops_draws_the_limit_and_states_the_rule(report: dict[str, Any], plain: dict[str, Any]) -> None:
    drawn = words(inline_svg(flops(typed(report))))
    cheap = report["structure"]["cheap"]
    assert f"cheap below {text.quantity(cheap['limit'])}" in drawn
    assert any(word.startswith("Cheap: below 0.5 of the median encoder stage") for word in drawn)
    assert [word for word in drawn if word.endswith(" (cheap)")] == [f"{name} (cheap)" for name in cheap["stages"]]
    assert "No stage counts as cheap: nothing on the main path changes the resolution." in words(
        inline_svg(flops(typed(plain)))
    )


def test_what_happened_to_a_stage() -> None:
    def made(edits: list[tuple[str, str, bool]], skips: list[tuple[str, str]], *gone: str) -> Step:
        done = [{"stage": s, "path": p, "exact": exact, "fate": "inherited"} for s, p, exact in edits]
        done += [{"stage": "a", "path": path, "exact": False, "fate": "removed"} for path in gone]
        return pass_of(done, [{"stage": s, "path": p} for s, p in skips], all(exact for *_, exact in edits))

    found = outcomes(
        [
            made([("a", "a.0", True), ("b", "b.0", True)], [("c", "c.0"), ("a", "a.1"), ("b", "b.1")]),
            made([("b", "b.0", False), ("b", "b.1", True)], [("c", "c.0")]),
        ]
    )
    assert found == {"a": ("exact", 1, 1), "b": ("approximate", 2, 0), "c": ("refused", 0, 1)}
    parts = [
        made([("a", "a.10", True)], []),
        made([("a", "a.10.pconv", True)], [("a", "a.10.pointwise"), ("a", "a.1")]),
    ]
    assert outcomes(parts) == {"a": ("exact", 1, 1)}
    assert outcomes([made([("a", "a.0", True)], [], "a.norm")]) == {"a": ("exact", 2, 0)}
    twice = made([("a", "a.0", True)] * 2, [])
    assert outcomes([twice, twice]) == {"a": ("exact", 2, 0)}, "two functions in one container, by two passes"


def test_a_page_can_hold_all_figures(report: dict[str, Any]) -> None:
    drawn = {name: inline_svg(make(typed(report)), name) for name, make in DRAWN.items()}
    together = "".join(drawn.values())
    ids = re.findall(r'\bid="([^"]+)"', together)
    assert len(ids) == len(set(ids))
    referred = re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"|aria-labelledby="([^"]+)"', together)
    assert {"".join(one) for one in referred} <= set(ids)
    stages = [f"stage-{index}" for index in range(len(report["before"]["stages"]))]
    assert sorted(one for one in ids if one.startswith("stage-")) == sorted(stages)
    for name, svg in drawn.items():
        assert svg.startswith("<svg ") and "<style" not in svg and "<metadata" not in svg
        assert f'role="{"group" if name == "unet" else "img"}"' in svg
        assert f'<title id="mofa-{name}-title">NAFNet, roadmap mofa, 1x3x32x32: ' in svg
        assert len(svg) < 150_000
    assert inline_svg(flops(typed(report)), "flops") == drawn["flops"]


def test_colours_of_a_page_are_the_pages(report: dict[str, Any]) -> None:
    svg = "".join(inline_svg(make(typed(report))) for make in DRAWN.values())
    assert f"var(--mofa-ink, {COLOURS['ink']})" in svg
    assert not re.findall(r"#[0-9a-f]{6}\b", re.sub(r"var\(--mofa-[a-z]+, #[0-9a-f]{6}\)", "", svg))
    assert len(set(COLOURS.values())) == len(COLOURS)
