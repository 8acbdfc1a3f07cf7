"""Several bundles side by side: sizes, times and quality, and where their layers differ; schema `mofa-comparison/1`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

from pydantic import Field

from ..base import words
from ..base.errors import ReportError
from .document import Block, Code, Document, Figure, Group, Groups, Heading, Notice, Paragraph, Table
from .model import Layer, Report
from .part import Part
from .summary import Summary, condition_text, summary

SCHEMA = "mofa-comparison/1"
_GROUPS = 12
"""Forms that are shown at a terminal"""


class Compared(Summary):
    """A network, and the original that it was made from."""

    original_sha256: str
    """Of the weights that its original had; empty where that is not known"""


class Different(Part):
    """A layer of different form in two networks; of each pair the first is that of the first."""

    path: str
    stage: str | None
    layer: tuple[str, str]
    parameters: tuple[int, int]
    macs: tuple[int, int]


class Difference(Part):
    """The layers of two rewritten networks."""

    first: str
    other: str
    """Their names"""
    same: int
    """How many layers have one path and one form"""
    only_first: tuple[Layer, ...]
    only_other: tuple[Layer, ...]
    different: tuple[Different, ...]


class Comparison(Part):
    """Several bundles side by side."""

    schema_: Literal["mofa-comparison/1"] = Field(alias="schema")
    networks: tuple[Compared, ...]
    same_original: bool
    """Whether all were made from the same architecture, by its name and its layers"""
    notes: tuple[str, ...]
    """What of this cannot be compared, such as MACs at different input sizes"""
    differences: tuple[Difference, ...]
    """One a bundle after the first"""


def compare(reports: Sequence[Report], names: Sequence[str], digests: Sequence[str] | None = None) -> Comparison:
    """The data form of several reports; layers are compared with those of the first.

    Args:
        reports: what is compared.
        names: their names.
        digests: of the weights that their originals had, as their recipes say; empty text where that is not known.

    Raises:
        ReportError: there are fewer than two.
    """
    if len(reports) < 2:
        raise ReportError("a comparison needs at least two networks")
    known = digests or [""] * len(reports)
    networks = [
        Compared(**dict(summary(report, name)), original_sha256=digest)
        for report, name, digest in zip(reports, names, known, strict=True)
    ]
    originals = {(report.model, *((layer.path, layer.layer) for layer in report.layers)) for report in reports}
    same = len(originals) == 1
    return Comparison(
        schema_=SCHEMA,
        networks=tuple(networks),
        same_original=same,
        notes=tuple(_notes(networks, same)),
        differences=tuple(
            _difference(reports[0], report, names[0], name) for report, name in zip(reports[1:], names[1:], strict=True)
        ),
    )


def _notes(networks: Sequence[Compared], same_original: bool) -> Iterable[str]:
    if not same_original:
        originals = ", ".join(
            f"{one.name} from {one.model} of {words.quantity(one.original.parameters)} parameters" for one in networks
        )
        yield f"These bundles were made from different originals ({originals}): changes are relative to each one's own."
    elif len({one.original_sha256 for one in networks if one.original_sha256}) > 1:
        digests = ", ".join(f"{one.name}: {one.original_sha256[:12] or 'not known'}" for one in networks)
        yield f"The originals have different weights (sha256 {digests}): errors and PSNRs are of different networks."
    if len({one.inputs for one in networks}) > 1:
        inputs = ", ".join(f"{one.name} at {one.inputs}" for one in networks)
        yield f"Input sizes differ ({inputs}): MACs cannot be compared."
    if len({one.weights for one in networks}) > 1:
        weights = "; ".join(f"{one.name}: {one.weights or 'not known'}" for one in networks)
        yield f"Weights differ ({weights})."
    measured = {one.quality_on for one in networks if one.quality_on}
    if len(measured) > 1:
        yield f"Output errors were measured on different inputs ({', '.join(sorted(measured))})."
    shown = [one for one in networks if one.psnr_on]
    if len({(one.psnr_on, one.original.psnr) for one in shown}) > 1:
        figures = "; ".join(f"{one.name}: {_psnrs(one)} dB on {one.psnr_on}" for one in shown)
        yield f"PSNR is of different images, and cannot be compared ({figures})."
    for one in networks:
        if one.trained:
            yield f"{one.name} was trained after the rewrite: its PSNR is of the weights since, its error not known."
    places = {one.condition for network in networks for one in network.latency}
    if places and any(len({one.condition for one in network.latency}) < len(places) for network in networks):
        yield "Not every bundle was measured under the same conditions: compare times only within one table."


def _psnrs(network: Summary) -> str:
    return f"{network.original.psnr:.2f} → {network.rewritten.psnr:.2f}"


def _difference(first: Report, other: Report, a: str, b: str) -> Difference:
    left, right = ({layer.path: layer for layer in report.rewritten_layers} for report in (first, other))
    pairs = [(layer, right[path]) for path, layer in left.items() if path in right]
    different = tuple(
        Different(
            path=one.path,
            stage=one.stage,
            layer=(one.layer, two.layer),
            parameters=(one.parameters, two.parameters),
            macs=(one.macs, two.macs),
        )
        for one, two in pairs
        if one.layer != two.layer
    )
    return Difference(
        first=a,
        other=b,
        same=len(pairs) - len(different),
        only_first=tuple(layer for path, layer in left.items() if path not in right),
        only_other=tuple(layer for path, layer in right.items() if path not in left),
        different=different,
    )


def document(data: Comparison, *, reports: Sequence[Report] = (), every: bool = True) -> Document:
    """What `compare` returned.

    Args:
        data: the comparison.
        reports: what it was made of, for a pareto plot.
        every: all forms of layers that differ, not the first of them alone.
    """
    return Document(heading(data), tuple(_blocks(data, reports, every)))


def _blocks(data: Comparison, reports: Sequence[Report], every: bool) -> Iterator[Block]:
    yield sizes(data)
    yield Paragraph(quality(data), "soft")
    yield from map(Notice, data.notes)
    tables = times(data)
    for title, table in tables:
        yield Heading(title)
        yield table
    if tables:
        yield Paragraph(_TIMING, "soft")
    with contextlib.suppress(ReportError):  # networks of which no two numbers are known have no plot
        if reports:
            from . import figures

            svg = figures.inline_svg(figures.pareto(reports, [one.name for one in data.networks]), "pareto")
            yield Heading("One against another")
            yield Figure(svg, "Figure: the networks by two of their numbers")
    for difference in data.differences:
        yield Heading(counts(difference))
        if not every and not difference.same and not difference.different:
            yield Paragraph("No path is in both: --verbose lists all layers.", "soft", 4)
            continue
        found = groups(difference)
        shown = found if every else found[:_GROUPS]
        if shown:
            yield Groups(tuple(shown))
        if more := len(found) - len(shown):
            yield Paragraph(f"and {more} more forms: --verbose shows all", "soft", 4)


_TIMING = (
    "Each ratio is to the original in the same run, its 95 % interval widened by the noise of the measurement. "
    "Runs differ with the machine's state: compare the ratios."
)


def heading(data: Comparison) -> str:
    """`NAFNet at 1x3x256x256, roadmaps mofa and wide`."""
    models = ", ".join(dict.fromkeys(f"{one.model} at {one.inputs}" for one in data.networks))
    roadmaps = list(dict.fromkeys(one.roadmap for one in data.networks))
    return f"{models}, roadmap{'s' if len(roadmaps) > 1 else ''} {' and '.join(roadmaps)}"


def sizes(data: Comparison) -> Table:
    """Parameters, MACs and quality: the originals, each once, then the bundles.

    One that was seen on different images, or of which there are several with different weights, has a row for each.
    """
    networks = data.networks
    truth = any(one.rewritten.psnr is not None for one in networks)
    header = ("network", "parameters", "MACs", "error", *(("PSNR",) if truth else ()), "PSNR to original")
    one_name = data.same_original and len({one.inputs for one in networks}) == 1
    digests = {one.original_sha256 for one in networks if one.original_sha256}
    only = digests.pop() if len(digests) == 1 else ""  # an architecture beside a bundle has no digest
    originals: dict[tuple[Any, ...], Compared] = {}
    for one in networks:
        original = one.original
        weights = (one.original_sha256 or only, original.psnr, one.psnr_on)  # a PSNR is of one image
        originals.setdefault((one.model, one.inputs, original.parameters, original.macs, *weights), one)
    names = ["original" if one_name else one.model for one in originals.values()]
    rows = []
    for name, one in zip(names, originals.values(), strict=True):
        original = one.original
        several = f"{name} of {one.name}" if names.count(name) > 1 else name
        quantities = (words.quantity(original.parameters), words.quantity(original.macs))
        rows.append((Code(several), *quantities, "", *((_psnr(original.psnr),) if truth else ()), ""))
    for one in networks:
        before, after = one.original, one.rewritten
        pairs = ((before.parameters, after.parameters), (before.macs, after.macs))
        amounts = (f"{words.quantity(now)} ({words.change(was, now)})" for was, now in pairs)
        known = after.error is not None
        to_original = _psnr(one.psnr_to_original) or ("same" if after.error == 0 else "")
        rows.append(
            (
                Code(one.name),
                *amounts,
                words.error_text(after.error) if known else "",
                *((_psnr(after.psnr),) if truth else ()),
                to_original,
            )
        )
    return Table(header, tuple(rows), "l" + "r" * (len(header) - 1), "Sizes and quality")


def times(data: Comparison) -> list[tuple[str, Table]]:
    """One table for every place where something was measured, with its title."""
    places: dict[str, list[tuple[str | Code, ...]]] = {}
    for network in data.networks:
        for one in network.latency:
            interval = one.interval
            places.setdefault(f"Time of one run on {condition_text(one.condition)}", []).append(
                (
                    Code(network.name),
                    _ms(one.original_ms),
                    _ms(one.rewritten_ms),
                    f"{one.ratio:.3f}",
                    f"{interval[0]:.3f} to {interval[1]:.3f}",
                    one.verdict,
                )
            )
    header = ("network", "original ms", "ms", "ratio", "95 % interval", "")
    return [(title, Table(header, tuple(rows), "lrrrrr", title)) for title, rows in places.items()]


def quality(data: Comparison) -> str:
    """What the columns of quality say."""
    measured = sorted({one.quality_on for one in data.networks if one.quality_on})
    where = f", on the {' or the '.join(measured)}" if measured else ""
    return f"Error and PSNR to original: of the output, against the original's{where}."


def counts(difference: Difference) -> str:
    """`From a to b: 12 layers of different form, 3 only in a, 0 only in b, 40 the same`."""
    a, b = difference.first, difference.other
    numbers = (
        f"{words.count(len(difference.different), 'layer')} of different form",
        f"{len(difference.only_first)} only in {a}",
        f"{len(difference.only_other)} only in {b}",
        f"{difference.same} the same",
    )
    return f"From {a} to {b}: {', '.join(numbers)}."


def groups(difference: Difference) -> list[Group]:
    """Layers that differ, alike ones together."""
    found: dict[tuple[str | Code, ...], list[str]] = {}
    for pair in difference.different:
        found.setdefault((Code(pair.layer[0]), " → ", Code(pair.layer[1])), []).append(pair.path)
    for name, layers in ((difference.first, difference.only_first), (difference.other, difference.only_other)):
        for layer in layers:
            found.setdefault((Code(layer.layer), " only in ", Code(name)), []).append(layer.path)
    return [Group(words, tuple(paths)) for words, paths in found.items()]


def _psnr(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} dB"


def _ms(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"
