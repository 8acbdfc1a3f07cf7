"""What a network is worth, in words: how much was lost, on which inputs, and what to do about that."""

from __future__ import annotations

from typing import Any

import pytest

from mofa_compiler.base.plain import plain_data
from mofa_compiler.base.spelling import markdown as escape
from mofa_compiler.report import content, headline, judged
from mofa_compiler.report.document import markdown
from mofa_compiler.report.model import Closeness, Image, Report
from mofa_compiler.report.page import render
from mofa_compiler.result.quality import Quality
from tests.report.reports import image, printed, recovered, report_of, typed


@pytest.fixture
def report() -> dict[str, Any]:
    """Of trained weights that were judged on nothing."""
    return report_of() | {"checkpoint": "net.pth"}


def with_quality(report: dict[str, Any], key: str = "quality", **figures: Any) -> dict[str, Any]:
    known = {"measure": "loss", "limit": None, "value": 0.1, "inputs": 16, "source": "photos", **figures}
    return report | {key: plain_data(Quality(**known).to_data())}


LOST = {"value": 15.75, "degraded": 20.2, "original": 32.15, "rewritten": 16.4}
CHAIN = "input 20.20 → original 32.15 → rewritten 16.40 dB"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (20.28, "input 20.28 → original 20.80 → rewritten 20.78 dB PSNR, SSIM 0.500 → 0.400."),
        (None, "original 20.80 → rewritten 20.78 dB PSNR, SSIM 0.500 → 0.400."),
    ],
)
def test_quality_is_told_beside_that_of_the_input(given: float | None, sentence: str) -> None:
    one = Image.model_construct(
        psnr=Closeness(input=given, original=20.8, rewritten=20.78, between=40.0),
        ssim=Closeness(input=given and 0.3, original=0.5, rewritten=0.4, between=0.9),
        source="",
    )
    made = Report.model_construct(images=(one,), recoveries=(), decisions=None)
    assert judged.quality(made) == f"Quality: on 1 image: {sentence}"
    assert judged.quality(Report.model_construct(images=(), recoveries=(), decisions=None)) == ""


def test_one_form_everywhere(report: dict[str, Any]) -> None:
    lost = with_quality(report, **LOST)
    for text in (markdown(content.for_reading(typed(lost))), render(typed(lost)), printed(lost, 400)):
        assert CHAIN in text
    assert lost["quality"]["sentence"].endswith(CHAIN)


@pytest.mark.parametrize(
    ("figures", "much"),
    [
        (LOST, True),
        ({"value": 0.29}, False),
        ({"value": 0.4, "limit": 0.5}, False),
        ({"value": 0.6, "limit": 0.5}, True),
        ({"measure": "psnr", "value": 43.0}, False),
        ({"measure": "psnr", "value": 41.0}, True),
        ({"measure": "agreement", "value": 0.985}, True),
        ({"measure": "agreement", "value": 0.985, "limit": 0.98}, False),
    ],
)
def test_what_was_lost_comes_first_with_what_to_do(report: dict[str, Any], figures: dict[str, Any], much: bool) -> None:
    made = typed(with_quality(report, **figures))
    said = judged.loss(made)
    assert bool(said) is much
    first = markdown(content.for_reading(made)).splitlines()[2]
    assert ("mofa recover" in first and "--max-loss" in first) is much


def test_a_validation_set_counts_too(report: dict[str, Any]) -> None:
    both = with_quality(with_quality(report, value=0.1), "validation", value=0.9, where="24 images of val")
    assert "24 images of val" in judged.loss(typed(both))
    cards = [card for card in headline.cards(typed(both)) if card.label == "Quality"]
    assert [card.tone for card in cards] == ["bad", ""]


def test_after_training_the_figures_are_of_now(report: dict[str, Any]) -> None:
    made = typed(recovered(with_quality(report, **LOST), 34.5))
    assert judged.known(made) == [] and judged.loss(made) == "" and judged.unknown(made) == ""


def test_what_was_judged_on_no_images_is_said_to_be_unknown(report: dict[str, Any]) -> None:
    said = judged.unknown(typed(report))
    assert "unknown" in said and "example input" in said and "--calibrate" in said
    (card,) = (card for card in headline.cards(typed(report)) if card.label.startswith("Output"))
    assert "example input" in card.note and "unknown" in card.note
    for known in (with_quality(report), report | {"images": [image("one", 32.0, 31.9)]}, report | {"checkpoint": ""}):
        assert judged.unknown(typed(known)) == ""
    exact = report | {"passes": [step | {"exact": True} for step in report["passes"]]}
    assert judged.unknown(typed(exact)) == "", "nothing was lost"


def test_without_held_out_inputs_the_images_say_how_much_was_lost(report: dict[str, Any]) -> None:
    changed = report | {"images": [image("one", 32.0, 29.97)]}
    lost = judged.loss(typed(changed))
    assert "2.03 dB" in lost and "--max-loss" in lost
    assert escape(lost[:20]) in markdown(content.for_reading(typed(changed)))
    assert lost[:20] in printed(changed, 120)
    assert judged.loss(typed({**changed, "images": [image("one", 32.0, 31.8)]})) == ""
    assert judged.loss(typed({**changed, "checkpoint": ""})) == "", "there was no skill to lose"


@pytest.mark.parametrize(("moved", "is_told"), [(0.3, True), (0.05, False)])
def test_without_clean_images_the_output_says_how_much_was_lost(
    report: dict[str, Any], moved: float, is_told: bool
) -> None:
    step = {**report["passes"][-1], "name": "calibration"}
    step["verdict"] = {**step["verdict"], "accumulated": moved}
    assert bool(judged.loss(typed(report | {"passes": [*report["passes"], step]}))) is is_told


def test_what_does_not_belong_together_is_said(report: dict[str, Any]) -> None:
    doubted = with_quality(report, degraded=48.1, original=25.3, rewritten=25.3)
    assert "nearly clean" in next(judged.opening(typed(doubted)))


def test_what_was_thrown_away_is_told_where_it_is_seen(report: dict[str, Any]) -> None:
    errors = "30.6 % inherited → 56.1 % tuned"
    step = {**report["passes"][-1], "name": "calibration", "options": {"not_kept": "tuned", "output_error": errors}}
    changed = report | {"passes": [*report["passes"], step]}
    said = judged.thrown_away(typed(changed))
    assert "tuned" in said and errors in said
    assert judged.thrown_away(typed(report)) == ""
    assert said[:30] in printed(changed, 120) and escape(said[:30]) in markdown(content.for_reading(typed(changed)))
