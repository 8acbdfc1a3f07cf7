"""Numbers and groups as every report format writes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..base.words import change, count, error_text, off, quantity

UNTRAINED = "the weights are those that the network is built with, usually random, and say little about its output"


def weights(report: Mapping[str, Any]) -> str:
    """A sentence on what the weights were read from; empty where that is not known, or they are no trained ones."""
    return f"Weights: {report['checkpoint']}." if report.get("checkpoint") else ""


def untrained(report: Mapping[str, Any]) -> str:
    """A sentence of warning where no checkpoint was given; else empty."""
    return f"No checkpoint was given: {UNTRAINED}." if report.get("checkpoint") == "" else ""


def psnr_text(value: float | None) -> str:
    """`38.1 dB`, or nothing where outputs agree."""
    return "" if value is None else f"{value:.1f} dB"


def outcome(step: Mapping[str, Any]) -> str:
    """What a pass did to the output: `exact`, `2.64 %`, `unchanged`, or a broken promise."""
    if not step["edits"]:
        return "unchanged"
    verdict = step["verdict"]
    if not verdict["holds"]:
        return f"NOT exact: {error_text(verdict['relative_error'])}"
    return "exact" if step["exact"] else error_text(verdict["relative_error"])


def is_exact(edit: Mapping[str, Any], step: Mapping[str, Any]) -> bool:
    """Whether an edit of a pass keeps what the network computes; a layer that is gone does so where its pass does."""
    return bool(step["exact"] if edit["fate"] == "removed" else edit["exact"])


def accuracy(report: Mapping[str, Any]) -> str:
    """One sentence on how far the rewritten network is from the original, and on what inputs that was measured."""
    if not any(step["edits"] for step in report["passes"]):
        return "Nothing to rewrite: the network is unchanged."
    verdict = report["passes"][-1]["verdict"]
    if verdict["accumulated"] == 0:
        return f"On the {verdict['measured_on']} the output is the same as the original's."
    figures = ", PSNR ".join(filter(None, (error_text(verdict["accumulated"]), psnr_text(verdict["psnr"]))))
    return f"Output error on the {verdict['measured_on']}, against the original: {figures}."


def quality(report: Mapping[str, Any]) -> str:
    """PSNR and SSIM of both networks, the mean over the report's images with a known target; empty without any.

    With the PSNR of what they were given, where that is an image like the target.
    """
    known = [image for image in report.get("images", ()) if image["psnr"]["original"] is not None]
    known = [image for image in known if image["psnr"]["rewritten"] is not None]
    if not known:
        return ""

    def pair(name: str, digits: int) -> str:
        values = [[image[name][key] for image in known] for key in ("original", "rewritten")]
        if None in values[0] + values[1]:
            return ""
        before, after = (sum(column) / len(known) for column in values)
        return f"{before:.{digits}f} → {after:.{digits}f}"

    psnr, ssim = pair("psnr", 2), pair("ssim", 3)
    sources = {image["source"] for image in known if image.get("source")}
    which = f" ({'; '.join(sorted(sources))})" if sources else ""
    given = [image["psnr"].get("input") for image in known]
    start = "" if None in given else f" (input {sum(given) / len(given):.2f})"
    return f"On {count(len(known), 'image')}{which}: {psnr} dB PSNR{start}{f', SSIM {ssim}' if ssim else ''}."


def checked(step: Mapping[str, Any]) -> str:
    """A sentence on how a claim of exactness was checked, and what came out; empty where none was made."""
    verdict = step["verdict"]
    if verdict["problem"]:
        return f"{verdict['problem']}."
    whole = verdict["whole"]
    if whole is None:
        return ""
    sizes = " and ".join(f"{size['shape']} (off by {off(size['error'])})" for size in whole["sizes"])
    note = f"; {whole['note']}" if whole["note"] else ""
    return f"Exact in {whole['precision']} for the whole network at {sizes}{note}."


def recovered(recovery: Mapping[str, Any]) -> str:
    """One sentence on a training since the rewrite: how long, on what, and what it brought."""
    data = ", ".join(
        f"{name.replace('_', ' ')} {value}" for name, value in recovery["data"].items() if value is not None
    )
    steps = count(recovery["steps"], "step")
    before, after, original = (recovery[f"psnr_{name}"] for name in ("before", "after", "original"))
    if not recovery["best_step"]:
        return f"Training for {steps} ({data}) gave nothing better than the weights from before: {before:.2f} dB."
    against = "to the original's output" if original is None else f"(the original: {original:.2f} dB)"
    return (
        f"Recovered by distillation, {steps} ({data}): validation PSNR {before:.2f} → {after:.2f} dB {against}, "
        f"weights of step {recovery['best_step']}."
    )


STAGE_HEADER = ("stage", "parameters", "MACs", "share of MACs")


def stage_rows(report: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Each stage's parameters, MACs and share of the MACs, before → after the roadmap."""
    later = {stage["name"]: stage for stage in report["after"]["stages"]}

    def both(stage: Mapping[str, Any], key: str) -> str:
        return f"{quantity(stage[key])} → {quantity(later[stage['name']][key])}"

    def shares(stage: Mapping[str, Any]) -> str:
        before, after = (100 * state["macs_share"] for state in (stage, later[stage["name"]]))
        return f"{before:.1f} → {after:.1f} %"

    return [
        (stage["name"], both(stage, "parameters"), both(stage, "macs"), shares(stage))
        for stage in report["before"]["stages"]
        if stage["name"] in later
    ]


def costs(report: Mapping[str, Any]) -> str:
    """A sentence where the roadmap makes the network cost more than before; else empty."""
    before, after = report["before"]["macs"], report["after"]["macs"]
    if after <= before:
        return ""
    return (
        f"More MACs than before ({change(before, after)}): measure whether it is faster where it will run, or let "
        "the rewrite keep only what is (--engine)."
    )


def shape_of_network(anatomy: Mapping[str, Any]) -> str:
    """One sentence: a U-Net or not, and why."""
    return f"{'A U-Net' if anatomy['is_unet'] else 'Not a U-Net'}: {anatomy['reason']}."


def shapes(report: Mapping[str, Any]) -> str:
    """The example inputs: `1x3x256x256`."""
    return ", ".join("x".join(map(str, spec["shape"])) or "scalar" for spec in report["inputs"])


def options_text(options: Mapping[str, Any]) -> str:
    """`portion=1/4, kinds=depthwise+dense`; of layers that are named, only how many names there are."""
    shown = {key: value for key, value in options.items() if key != "layers"}
    parts = [f"{key}={'+'.join(map(str, value)) if isinstance(value, list) else value}" for key, value in shown.items()]
    if "layers" in options:
        parts.append(f"layers={count(len(options['layers']), 'glob')}")
    return ", ".join(parts)


_ADJUSTED = ("compensated", "calibrated", "reordered")


def rewritten(step: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The edits that put another layer in place or took one away."""
    return [edit for edit in step["edits"] if edit["fate"] not in _ADJUSTED]


def calibrated(step: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The layers that were fitted on example inputs, or whose channels were permuted."""
    return [edit for edit in step["edits"] if edit["fate"] in ("calibrated", "reordered")]


def compensated(step: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The neighbours whose weights were adjusted, the layers staying what they are."""
    return [edit for edit in step["edits"] if edit["fate"] == "compensated"]


def edit_remark(edit: Mapping[str, Any]) -> str:
    """Fate of the weights, and the note: `inherited; 1/4 of 6 channels rounded to 2`."""
    return "; ".join(filter(None, (edit["fate"], edit["note"])))


def grouped(items: Iterable[Mapping[str, Any]], *keys: str) -> dict[tuple[Any, ...], list[Mapping[str, Any]]]:
    """Items by the values of some keys, in order of first appearance."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for item in items:
        groups.setdefault(tuple(item[key] for key in keys), []).append(item)
    return groups
