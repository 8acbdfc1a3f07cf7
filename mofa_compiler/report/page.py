"""The page of a report: the parts that every format has, with figures, images, and the layers of every stage."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

from ..base import spelling, words
from ..base.errors import RoadmapError
from ..rewriting.registry import available
from . import content, decided, text
from .document import Block, Code, Details, Document, Figure, Heading, Notice, Paragraph, Pictures, Search, Table, Toned
from .document.html import page
from .embedding import pictures
from .figures.stage_chart import cheap_rule
from .headline import cards, notices
from .model import Report
from .stages import OTHER, RewrittenStage, view

LIMIT = 3_000_000
"""Bytes that a page with images may have: they are made smaller to fit"""

_FATES = {
    "exact": "Computes what it did before, with new weights.",
    "merged": "Took over what its neighbours computed: the product of their weights.",
    "inherited": "Weights made from the old ones by a formula; no data was needed.",
    "compensated": "The same layer, its weights adjusted because a neighbour was rewritten.",
    "calibrated": "Weights fitted on example inputs.",
    "reordered": "The same weights, channels in another order.",
    "fresh": "Random weights, which have to be trained.",
    "removed": "The layer is gone.",
}


def render(report: Report, folder: Path | None = None) -> str:
    """The page of a report; the same report gives the same text.

    Args:
        report: what was made of a result, or read.
        folder: the bundle, whose folder `images` has the images that the report names.
    """
    above, below = list(_above(report)), list(_below(report))

    def made(images: Iterable[Block]) -> str:
        return page(Document((report.model, " rewritten by ", report.roadmap.name), (*above, *images, *below)))

    if not report.images:
        return made(())
    bare = made(_images(*pictures(report, None, 0)))
    return made(_images(*pictures(report, folder, max(LIMIT - len(bare.encode()) - 1000, 0))))


def _above(report: Report) -> Iterator[Block]:
    """What matters first, and what each pass bought."""
    if report.roadmap.description:
        yield Paragraph(report.roadmap.description, "soft")
    yield from content.traded(report)
    yield Table(
        ("", "before", "after", "change", "meaning"),
        tuple((one.label, one.before, one.after, Toned(one.change, one.tone), one.note) for one in cards(report)),
        "lrrll",
        "Key figures, original and rewritten",
        cards=True,
    )
    yield from content.origin(report)
    yield from map(Notice, notices(report))
    yield Heading("What each pass bought", "roadmap")
    if report.passes:
        yield _figure(report, "roadmap", "Figure: parameters and MACs after every pass")
    yield from content.passes(report, _summaries(step.name for step in report.passes))


def _below(report: Report) -> Iterator[Block]:
    """Where the computation lies, everything that was done, and what words mean."""
    yield Heading("Where the computation lies", "stages")
    if report.before.stages:
        yield _figure(report, "flops", "Figure: MACs by stage")
        yield Paragraph(cheap_rule(view(report)), "soft")
    yield from content.stages(report)
    if report.before.stages:
        yield _figure(report, "unet", "Figure: the network by stages")
    yield from _layers(report)
    edits = sum(len(step.edits) for step in report.passes)
    yield Heading(f"Every edit ({edits:,}), and what was left alone", "edits")
    if report.passes:
        yield Search("Search layers, stages, kinds, notes …")
    yield from content.details(report, "every")
    if report.decisions:
        yield Heading("Decided by measurement", "decisions")
        yield from decided.alternatives(report.decisions)
    if report.recoveries:
        yield Heading("Recovered by training", "recoveries")
        yield from _recoveries(report)
    yield Heading("Terms", "terms")
    yield _terms(report)
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    yield Paragraph(
        (f"{versions}. The data of this page is in report.json, schema ", Code(report.schema_), "."), "soft"
    )


def _figure(report: Report, name: str, label: str) -> Figure:
    from . import figures

    draw: dict[str, Callable[[Report], Any]] = {
        "roadmap": functools.partial(figures.roadmap, bare=True),
        "flops": functools.partial(figures.flops, bare=True),
        "unet": figures.unet,
    }
    stages = enumerate(spelling.printable(stage.name) for stage in report.before.stages)
    links = {f"stage-{index}": (f"#layers-{index}", f"Layers of {stage}") for index, stage in stages}
    return Figure(figures.inline_svg(draw[name](report), name, links=links), label)


def _images(found: Iterable[Pictures], note: str) -> Iterator[Block]:
    yield Heading("Images before and after", "images")
    if note:
        yield Paragraph(note, "soft")
    yield from found
    yield Paragraph(
        "PSNR: peak signal-to-noise ratio in decibels, with the range from black to white as its peak; higher is "
        "closer. SSIM: structural similarity, 1 for equal images.",
        "soft",
    )


def _layers(report: Report) -> Iterator[Block]:
    """The layers of every stage, which the drawing links to."""
    forms = became(report)
    stages = [stage for stage in view(report).stages if isinstance(stage, RewrittenStage)]
    listed = text.grouped(zip(report.layers, forms, strict=True), lambda one: one[0].stage or OTHER)
    for index, stage in enumerate(stages):
        own = listed.get(stage.name, [])
        counts = (
            words.count(len(own), "layer"),
            f"{stage.edits} edited" * bool(stage.edits),
            f"{stage.refusals} left alone" * bool(stage.refusals),
        )
        said = f"{stage.name}{' (cheap)' * stage.cheap}: {', '.join(filter(None, counts))}"
        rows = tuple((Code(layer.path), Code(layer.layer), form, macs) for layer, (form, macs) in own)
        table = Table(("layer", "was", "became", "MACs"), rows, "lllr", f"Layers of {stage.name}")
        yield Details(said, (table if rows else Paragraph("No layers that compute.", "soft"),), f"layers-{index}")


def became(report: Report) -> list[tuple[str | Code, str]]:
    """For each of the report's `layers` what it became, its form, `removed` or empty, and its MACs before and
    after: `12.6 M → 3.1 M`."""
    edits = [edit for step in report.passes for edit in step.edits]
    forms: dict[str, str | Code] = {edit.path: f"weights {edit.fate}" for edit in edits if edit.before == edit.after}
    forms |= {edit.path: Code(edit.after) if edit.after else "removed" for edit in edits if edit.before != edit.after}
    later: Counter[str] = Counter()
    for layer in report.rewritten_layers:
        for path in accumulate(layer.path.split("."), "{}.{}".format):
            later[path] += layer.macs
    found: list[tuple[str | Code, str]] = []
    for layer in report.layers:
        before, after = words.quantity(layer.macs), words.quantity(later[layer.path])
        changed = layer.path in forms and bool(later) and after != before
        found.append((forms.get(layer.path, ""), f"{before} → {after}" if changed else before))
    return found


def _summaries(names: Iterable[str]) -> dict[str, str]:
    """What each pass does, in one sentence, of those that are installed here."""
    try:
        passes = available()
    except RoadmapError:  # a broken package of somebody else's: the report is still good
        return {}
    found = {name: (passes[name].__doc__ or "") for name in names if name in passes}
    sentences = {name: " ".join(doc.partition("\n\n")[0].split()).replace("`", "") for name, doc in found.items()}
    return {"calibration": "Fit the weights to example inputs.", **sentences}


def _recoveries(report: Report) -> Iterator[Block]:
    """How long every training took, and its validations."""
    for one in report.recoveries:
        yield Paragraph(f"{text.recovered(one)} It took {one.seconds:.3g} s.")
        rows = tuple(
            (
                f"{point.step} (kept)" if point.step == one.best_step else str(point.step),
                text.psnr_text(point.psnr),
                "" if point.loss is None else f"{point.loss:.3g}",
            )
            for point in one.history
        )
        validations = Table(("step", "PSNR", "training loss"), rows, "lrr", "Validations")
        yield Details(f"{len(rows)} validations", (validations,))


_TERMS: tuple[tuple[str | Code, str], ...] = (
    (
        "MACs",
        "Multiply–accumulate operations for one input, counted with true shapes. They are not time: an engine may run "
        "fewer of them slower. 1 k = 1,000, 1 M = a million, 1 G = a thousand million.",
    ),
    ("Parameters", "All numbers that training changes: weights and biases."),
    (
        "Δ",
        "The change that an edit made. Δ time is that of the piece of the network around the layer, after all passes.",
    ),
    (
        "Roadmap, pass",
        "A roadmap is an ordered list of passes. A pass is one kind of rewrite, carried out wherever it fits.",
    ),
    (
        "Stage",
        "A part of a U-Net that works at one resolution: stem, encoders (down), bottleneck, decoders (up), head. A "
        "cheap one would cost little if all its convolutions were vanilla ones, compared with the median encoder.",
    ),
    (
        Code("Conv2d(64→128, k3, s2)"),
        "A convolution of 64 to 128 channels with a 3×3 kernel and stride 2; depthwise: each channel by itself.",
    ),
    (
        Code("PConv2d"),
        "Partial convolution: a vanilla convolution of the first channels (portion of all), the others pass unchanged.",
    ),
    (
        Code("PDWConv2d"),
        "Partial depthwise convolution: a depthwise convolution of the first channels, the others pass unchanged.",
    ),
    (
        "Exact, approximate",
        "An exact edit keeps what the network computes, up to rounding; that is checked in float64, and “off by” is "
        "the largest difference ÷ the largest output. An approximate one changes it; how far the whole pass moved the "
        "output, size of the difference ÷ size of the output, is measured.",
    ),
    (
        "Left alone",
        "Layers of the kind that a pass looks for, which it did not rewrite. Another pass may have.",
    ),
    (
        "PSNR, SSIM",
        "Peak signal-to-noise ratio (decibels; higher is closer) and structural similarity (1 for equal images). The "
        "peak of PSNR is the range from black to white for images, and the range of the original's output for passes "
        "and whole networks, so the two differ.",
    ),
)


def _terms(report: Report) -> Table:
    met = {edit.fate for step in report.passes for edit in step.edits}
    fates = tuple((f"Weights: {fate}", meaning) for fate, meaning in _FATES.items() if fate in met)
    return Table(("term", "meaning"), (*_TERMS, *fates), "ll", "Terms")
