"""The comparison as plain data, schema `mofa-comparison/1`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import Field

from ...base import words
from ...base.errors import ReportError
from ..model import Layer, Report
from ..part import Part
from ..summary import Summary, summary

SCHEMA = "mofa-comparison/1"


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
        figures = "; ".join(f"{one.name}: {_psnr(one)} dB on {one.psnr_on}" for one in shown)
        yield f"PSNR is of different images, and cannot be compared ({figures})."
    for one in networks:
        if one.trained:
            yield f"{one.name} was trained after the rewrite: its PSNR is of the weights since, its error not known."
    places = {one.condition for network in networks for one in network.latency}
    if places and any(len({one.condition for one in network.latency}) < len(places) for network in networks):
        yield "Not every bundle was measured under the same conditions: compare times only within one table."


def _psnr(network: Summary) -> str:
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
