"""The comparison as tables of text, which every format renders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...base import words
from ..summary import condition_text
from .data import Compared, Comparison, Difference


@dataclass(frozen=True)
class Table:
    """A title, a header and rows; the first column is text, the others are numbers."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Group:
    """Layers that differ in the same way: `before` in the first network, `after` in the other, empty for none."""

    before: str
    after: str
    paths: tuple[str, ...]


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
        rows.append((several, *quantities, "", *((_psnr(original.psnr),) if truth else ()), ""))
    for one in networks:
        before, after = one.original, one.rewritten
        pairs = ((before.parameters, after.parameters), (before.macs, after.macs))
        amounts = (f"{words.quantity(now)} ({words.change(was, now)})" for was, now in pairs)
        known = after.error is not None
        to_original = _psnr(one.psnr_to_original) or ("same" if after.error == 0 else "")
        rows.append(
            (
                one.name,
                *amounts,
                words.error_text(after.error) if known else "",
                *((_psnr(after.psnr),) if truth else ()),
                to_original,
            )
        )
    return Table("", header, tuple(rows))


def times(data: Comparison) -> list[Table]:
    """One table for every place where something was measured."""
    places: dict[tuple[Any, ...], list[tuple[str, ...]]] = {}
    titles = {}
    for network in data.networks:
        for one in network.latency:
            where = one.condition
            titles[where] = f"Time of one run on {condition_text(where)}"
            interval = one.interval
            places.setdefault(where, []).append(
                (
                    network.name,
                    _ms(one.original_ms),
                    _ms(one.rewritten_ms),
                    f"{one.ratio:.3f}",
                    f"{interval[0]:.3f} to {interval[1]:.3f}",
                    one.verdict,
                )
            )
    header = ("network", "original ms", "ms", "ratio", "95 % interval", "")
    return [Table(titles[where], header, tuple(rows)) for where, rows in places.items()]


def quality(data: Comparison) -> str:
    """What the columns of quality say."""
    measured = sorted({one.quality_on for one in data.networks if one.quality_on})
    where = f", on the {' or the '.join(measured)}" if measured else ""
    return f"Error and PSNR to original: of the output, against the original's{where}."


def timing(data: Comparison) -> str:
    """How to read several times; empty where there are none."""
    if not any(one.latency for one in data.networks):
        return ""
    return (
        "Each ratio is to the original in the same run, its 95 % interval widened by the noise of the measurement. "
        "Runs differ with the machine's state: compare the ratios."
    )


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
    found: dict[tuple[str, str], list[str]] = {}
    for pair in difference.different:
        found.setdefault(pair.layer, []).append(pair.path)
    for side, layers in enumerate((difference.only_first, difference.only_other)):
        for layer in layers:
            key = ("", layer.layer) if side else (layer.layer, "")
            found.setdefault(key, []).append(layer.path)
    return [Group(before, after, tuple(paths)) for (before, after), paths in found.items()]


def _psnr(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} dB"


def _ms(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"
