"""The comparison as plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...base import words
from ...base.errors import ReportError
from ..summary import condition, summary

SCHEMA = "mofa-comparison/1"


def compare(
    reports: Sequence[Mapping[str, Any]], names: Sequence[str], digests: Sequence[str] | None = None
) -> dict[str, Any]:
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
        {**summary(report, name), "original_sha256": digest}
        for report, name, digest in zip(reports, names, known, strict=True)
    ]
    by_layers = all("layers" in report for report in reports)
    same = len({_original(report, by_layers) for report in reports}) == 1
    return {
        "schema": SCHEMA,
        "networks": networks,
        "same_original": same,
        "notes": list(_notes(networks, same)),
        "differences": [
            _difference(reports[0], report, names[0], name) for report, name in zip(reports[1:], names[1:], strict=True)
        ],
    }


def _original(report: Mapping[str, Any], by_layers: bool) -> tuple[Any, ...]:
    """What tells an original from another one: its name and layers, or where they are not known of all, its size."""
    if not by_layers:
        return report["model"], report["before"]["parameters"]
    return report["model"], tuple((layer["path"], layer["layer"]) for layer in report["layers"])


def _notes(networks: Sequence[Mapping[str, Any]], same_original: bool) -> Iterable[str]:
    if not same_original:
        originals = ", ".join(
            f"{one['name']} from {one['model']} of {words.quantity(one['original']['parameters'])} parameters"
            for one in networks
        )
        yield f"These bundles were made from different originals ({originals}): changes are relative to each one's own."
    elif len({one["original_sha256"] for one in networks if one["original_sha256"]}) > 1:
        digests = ", ".join(f"{one['name']}: {one['original_sha256'][:12] or 'not known'}" for one in networks)
        yield f"The originals have different weights (sha256 {digests}): errors and PSNRs are of different networks."
    if len({one["inputs"] for one in networks}) > 1:
        inputs = ", ".join(f"{one['name']} at {one['inputs']}" for one in networks)
        yield f"Input sizes differ ({inputs}): MACs cannot be compared."
    if len({one["weights"] for one in networks}) > 1:
        weights = "; ".join(f"{one['name']}: {one['weights'] or 'not known'}" for one in networks)
        yield f"Weights differ ({weights})."
    measured = {one["quality_on"] for one in networks if one["quality_on"]}
    if len(measured) > 1:
        yield f"Output errors were measured on different inputs ({', '.join(sorted(measured))})."
    shown = [one for one in networks if one["psnr_on"]]
    if len({(one["psnr_on"], one["original"]["psnr"]) for one in shown}) > 1:
        figures = "; ".join(f"{one['name']}: {_psnr(one)} dB on {one['psnr_on']}" for one in shown)
        yield f"PSNR is of different images, and cannot be compared ({figures})."
    for one in networks:
        if one["trained"]:
            yield f"{one['name']} was trained after the rewrite: its PSNR is of the weights since, its error not known."
    places = {tuple(condition(one)) for network in networks for one in network["latency"]}
    if places and any(len({condition(one) for one in network["latency"]}) < len(places) for network in networks):
        yield "Not every bundle was measured under the same conditions: compare times only within one table."


def _psnr(network: Mapping[str, Any]) -> str:
    return f"{network['original']['psnr']:.2f} → {network['rewritten']['psnr']:.2f}"


def _difference(first: Mapping[str, Any], other: Mapping[str, Any], a: str, b: str) -> dict[str, Any] | None:
    if "rewritten_layers" not in first or "rewritten_layers" not in other:
        return None
    left, right = ({layer["path"]: layer for layer in report["rewritten_layers"]} for report in (first, other))
    different = [
        {
            "path": path,
            "stage": layer["stage"],
            "layer": [layer["layer"], right[path]["layer"]],
            "parameters": [layer["parameters"], right[path]["parameters"]],
            "macs": [layer["macs"], right[path]["macs"]],
        }
        for path, layer in left.items()
        if path in right and layer["layer"] != right[path]["layer"]
    ]
    return {
        "first": a,
        "other": b,
        "same": len(left.keys() & right.keys()) - len(different),
        "only_first": [layer for path, layer in left.items() if path not in right],
        "only_other": [layer for path, layer in right.items() if path not in left],
        "different": different,
    }
