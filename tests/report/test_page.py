"""The text of the page: what it says, that nothing in it is loaded or breaks out, and how large it becomes."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from mofa_compiler import apply
from mofa_compiler.base.spelling import printable
from mofa_compiler.report import headline, page, text
from mofa_compiler.report.document import Code
from mofa_compiler.report.model import Layer, Report
from mofa_compiler.report.page import LIMIT
from mofa_compiler.report.stages import outcomes
from mofa_compiler.rewriting.registry import available
from tests.report.made import HOSTILE, made, with_images
from tests.report.reports import pass_of, typed

MEASURED = {
    **{"engine": "onnxruntime", "version": "1.32.0", "processor": "CPU", "threads": 1, "input": "1x3x64x64"},
    **{"original_ms": 12.34, "rewritten_ms": 0.8123, "ratio": 0.0658, "interval": [0.06, 0.07], "verdict": "faster"},
    "control": [1.0, 1.0],
}
RECOVERY = {
    **{"steps": 9, "seconds": 0.1, "psnr_before": 30.0, "psnr_after": 33.0, "psnr_original": 33.5, "best_step": 3},
    **{"history": [{"step": 0, "seconds": 0.0, "loss": None, "psnr": 30.0}], "data": {"examples": 9}, "settings": {}},
}


def render(report: dict[str, Any], folder: Path | None = None) -> str:
    return page.render(typed(report), folder)


class Read(HTMLParser):
    """Tags with their attributes, and the text, that of scripts and the style sheet aside."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._tag = ""
        self.feed(html)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._tag = tag

    def handle_endtag(self, tag: str) -> None:
        self._tag = ""

    def handle_data(self, data: str) -> None:
        if self._tag not in ("script", "style"):
            self.words.append(data)


def test_no_name_is_markup() -> None:
    html = render(made(3 * len(HOSTILE)))
    read = Read(html)
    assert {tag for tag, _ in read.tags} & {"img", "i", "u", "iframe", "object", "link", "base"} == set()
    assert not any(name.startswith("on") for _, attributes in read.tags for name in attributes)
    assert "\x00" not in html and "\u202e" not in read.text
    assert r"right\u202egnp.exe" in read.text
    assert "{{ 7 * 7 }}" in read.text


@pytest.mark.parametrize("layers", [10, 3000])
def test_nothing_is_loaded_and_the_page_is_small(layers: int, tmp_path: Path) -> None:
    report = with_images(made(layers, decided=True), tmp_path)
    html = render(report, tmp_path)
    assert len(html.encode()) < LIMIT
    for tag, attributes in Read(html).tags:
        for name in ("src", "href", "srcset", "data", "action", "xlink:href"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:image/")), (tag, name, value)
        assert "url(" not in (attributes.get("style") or "").replace("url(#", "")
    style = html.partition("<style>")[2].partition("</style>")[0]
    assert style and "url(" not in style and "@import" not in style


def test_links_lead_to_what_is_in_the_page(tmp_path: Path) -> None:
    tags = Read(render(with_images(made(40, decided=True), tmp_path), tmp_path)).tags
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes.get("href") or attributes.get("xlink:href") or "" for tag, attributes in tags if tag == "a"]
    assert {link[1:] for link in links} <= {*ids}
    sections = ["roadmap", "images", "stages", "edits", "decisions", "terms"]
    assert links[: 1 + len(sections)] == ["#content", *(f"#{name}" for name in sections)]
    assert {f"#layers-{index}" for index in range(7)} <= {*links}


def test_the_same_report_gives_the_same_page() -> None:
    assert render(made(30, decided=True)) == render(made(30, decided=True))


def test_every_edit_and_every_refusal_is_there() -> None:
    report = made(40)
    read = Read(render(report))
    for step in report["passes"]:
        for one in (*step["edits"], *step["skips"]):
            assert read.text.count(" ".join(printable(one["path"]).split())) >= 3  # edited, left alone, and of a stage


def test_what_an_exact_pass_removes_is_exact() -> None:
    network = nn.Sequential(nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6), nn.Conv2d(6, 3, 1)).eval()
    report = typed(apply(network, [available()["merge-linear"]()], torch.rand(1, 3, 8, 8)).report)
    (step,) = report.passes
    removed = [edit for edit in step.edits if edit.fate == "removed"]
    assert removed
    assert {text.accuracy_of(edit, step) for edit in removed} == {"exact"}
    assert {outcome for outcome, *_ in outcomes(report.passes).values()} == {"exact"}
    step = step.model_copy(update={"exact": False})
    assert {text.accuracy_of(edit, step) for edit in removed} == {"approximate"}


def test_a_stage_of_which_only_weights_were_fitted_is_no_edited_one() -> None:
    edits = [{"path": path, "stage": path, "fate": "calibrated", "exact": False} for path in "ab"]
    rewritten = {"path": "b", "stage": "b", "fate": "inherited", "exact": True}
    passes = [pass_of([rewritten]), pass_of(edits, exact=False)]
    assert {stage: outcome for stage, (outcome, *_) in outcomes(passes).items()} == {
        "a": "adjusted",
        "b": "approximate",
    }


def test_time_and_quality_at_the_top(tmp_path: Path) -> None:
    report = made(10)

    def card(label: str, **more: Any) -> headline.Card:
        return next(card for card in headline.cards(typed({**report, **more})) if card.label.startswith(label))

    assert card("Time").after == "not measured"
    timed = card("Time", measurements=[MEASURED])
    assert (timed.label, timed.before, timed.after) == ("Time, onnxruntime", "12.3 ms", "812 µs")
    assert (timed.change, timed.tone) == ("0.07 × the time: faster", "good")
    assert "1 thread" in timed.note and "0.06 to 0.07: 95 % interval, widened by 0.0 % of noise; " in timed.note
    noisy = card("Time", measurements=[{**MEASURED, "control": [0.9, 1.05]}])
    assert "0.05 to 0.08: 95 % interval, widened by 10.0 % of noise" in noisy.note

    assert card("Output").after == "2.10 % off"
    recovered = card("Quality", recoveries=[RECOVERY])
    assert (recovered.before, recovered.after, recovered.change) == ("33.50 dB", "33.00 dB", "−0.50 dB")
    images = with_images(report, tmp_path)["images"]
    seen = card("Quality", images=images)
    assert (seen.before, seen.after, seen.change) == ("31.25 dB", "30.75 dB", "−0.50 dB")
    assert seen.note.startswith("PSNR against the clean image, the image below")
    towards_the_original = {**RECOVERY, "psnr_original": None, "best_step": 0}
    assert card("Output", recoveries=[towards_the_original]).after == "30.00 dB"


def test_what_every_layer_became() -> None:
    edits = [
        {"path": "a", "before": "Conv2d", "after": "PConv2d", "fate": "inherited"},
        {"path": "b", "before": "Conv2d", "after": "Conv2d", "fate": "compensated"},
        {"path": "c", "before": "ReLU", "after": "", "fate": "removed"},
    ]
    fitted = [{**edits[0], "before": "PConv2d", "fate": "calibrated"}, {**edits[1], "fate": "calibrated"}]
    report = Report.model_construct(
        passes=(pass_of(edits), pass_of(fitted)),
        layers=tuple(Layer.model_construct(path=path, macs=2000) for path in "abcd"),
        rewritten_layers=tuple(Layer.model_construct(path=path, macs=500) for path in ("a.0", "a.1", "b", "d")),
    )
    assert page.became(report) == [
        (Code("PConv2d"), "2.00 k → 1.00 k"),
        ("weights calibrated", "2.00 k → 500"),
        ("removed", "2.00 k → 0"),
        ("", "2.00 k"),
    ]


def test_decided_times_are_shown_unless_the_engine_was_measured_since() -> None:
    report = made(10, decided=True)
    labels = [card.before for card in headline.cards(typed(report)) if card.label.startswith("Time")]
    assert labels == ["3.00 ms"]
    labels = [
        card.before for card in headline.cards(typed({**report, "measurements": [MEASURED]})) if "Time" in card.label
    ]
    assert labels == ["12.3 ms"]


@pytest.mark.parametrize(
    ("value", "words"), [(0.0123, "12.3 µs"), (0.9996, "1.00 ms"), (123.4, "123 ms"), (1234, "1.23 s"), (None, "–")]
)
def test_times_have_three_digits(value: float | None, words: str) -> None:
    assert text.milliseconds(value) == words


def test_an_unchanged_network_has_a_page() -> None:
    report = made(10)
    report.update(passes=[], layers=[], after=report["before"])
    read = Read(render(report))
    assert "The roadmap has no passes" in read.text
    assert "Every edit (0)" in read.text


def test_images_that_are_too_large_are_compressed(tmp_path: Path) -> None:
    report = with_images(made(10), tmp_path, size=400)
    html = render(report, tmp_path)
    assert len(html.encode()) < LIMIT
    assert "images are shown compressed" in html
    sources = [attributes["src"] or "" for tag, attributes in Read(html).tags if tag == "img"]
    assert len(sources) == 9
    assert all(source.startswith("data:image/webp;base64,") for source in sources)


@pytest.mark.parametrize("size", [(20_000, 50), (50, 20_000)], ids=["wide", "high"])
def test_a_damaged_image_is_missing_and_a_very_large_one_is_shown_smaller(
    size: tuple[int, int], tmp_path: Path
) -> None:
    report = with_images(made(10), tmp_path, size=400)
    Image.effect_noise(size, 50).save(tmp_path / "images" / "0-input.png")
    damaged = tmp_path / "images" / "0-original.png"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    read = Read(render(report, tmp_path))
    sources = [attributes["src"] or "" for tag, attributes in read.tags if tag == "img"]
    assert len(sources) == 8
    assert "compressed at 75 % of their size" in read.text
    assert "not among the files of the bundle" in read.text


@pytest.mark.slow
def test_only_images_of_the_bundle_are_read(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    report = with_images(made(10), bundle)
    Image.new("RGB", (2, 2)).save(tmp_path / "secret.png")
    (bundle / "images" / "text.png").write_text("no image")
    (bundle / "images" / "damaged.png").write_bytes((bundle / "images" / "0-input.png").read_bytes()[:200])
    outside = ("images/../../secret.png", "../secret.png", str(tmp_path / "secret.png"))
    names = (*outside, "images/text.png", "images/damaged.png")
    for name in names:
        report["images"][1]["input"] = name
        read = Read(render(report, bundle))
        assert sum(tag == "img" for tag, _ in read.tags) == 8
        assert "not among the files of the bundle" in read.text
