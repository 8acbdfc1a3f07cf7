"""Numbers and groups as every report format writes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from statistics import fmean
from typing import Any, TypeVar

from ..base.words import UNTRAINED, change, count, error_text, off, quantity
from .measured import Recovery
from .model import Anatomy, Edit, Report, Step, TensorShape

_Item = TypeVar("_Item")
_Key = TypeVar("_Key")


def weights(report: Report) -> str:
    """A sentence on what the weights were read from; empty where that is not known, or they are no trained ones."""
    return f"Weights: {report.checkpoint}." if report.checkpoint else ""


def untrained(report: Report) -> str:
    """A sentence of warning where no checkpoint was given; else empty."""
    return f"No checkpoint was given: {UNTRAINED}." if report.checkpoint == "" else ""


def psnr_text(value: float | None) -> str:
    """`38.1 dB`, or nothing where outputs agree."""
    return "" if value is None else f"{value:.1f} dB"


def milliseconds(value: float | None) -> str:
    """A time in three significant digits: `12.3 ms`, `84.0 µs`, `1.24 s`."""
    if value is None:
        return "–"
    for scale, unit in ((1e3, "s"), (1.0, "ms")):
        if abs(value) >= 0.9995 * scale:
            return f"{_digits(value / scale)} {unit}"
    return f"{_digits(1e3 * value)} µs"


def _digits(number: float) -> str:
    return f"{number:.{2 if abs(number) < 9.995 else 1 if abs(number) < 99.95 else 0}f}"


def decibels(value: float | None) -> str:
    """`38.12 dB` of what was measured; without an error there is no end to it."""
    return "∞ dB" if value is None else f"{value:.2f} dB"


def outcome(step: Step) -> str:
    """What a pass did to the output: `exact`, `2.64 %`, `unchanged`, or a broken promise."""
    if not step.edits:
        return "unchanged"
    verdict = step.verdict
    if not verdict.holds:
        return f"NOT exact: {error_text(verdict.relative_error)}"
    return "exact" if step.exact else error_text(verdict.relative_error)


def is_exact(edit: Edit, step: Step) -> bool:
    """Whether an edit of a pass keeps what the network computes; a layer that is gone does so where its pass does."""
    return bool(step.exact if edit.fate == "removed" else edit.exact)


def accuracy_of(edit: Edit, step: Step) -> str:
    """`exact`, `exact (off by 2e-16)`, or `approximate`; how far one pass moved the output is the pass's to say."""
    if not is_exact(edit, step):
        return "approximate"
    return "exact" if edit.error is None else f"exact (off by {off(edit.error)})"


def accuracy(report: Report) -> str:
    """One sentence on how far the rewritten network is from the original, and on what inputs that was measured."""
    if not any(step.edits for step in report.passes):
        return "Nothing to rewrite: the network is unchanged."
    verdict = report.passes[-1].verdict
    if verdict.accumulated == 0:
        return f"On the {verdict.measured_on} the output is the same as the original's."
    figures = ", PSNR ".join(filter(None, (error_text(verdict.accumulated), psnr_text(verdict.psnr))))
    return f"Output error on the {verdict.measured_on}, against the original: {figures}."


def mean(values: Iterable[float | None]) -> float | None:
    """None where one of them is not known, or there are none."""
    known = list(values)
    return None if None in known or not known else fmean(value for value in known if value is not None)


def off_text(error: float | None) -> str:
    """How far something exact is off."""
    return error_text(None) if error is None else off(error)


def checked(step: Step) -> str:
    """A sentence on how a claim of exactness was checked, and what came out; empty where none was made."""
    verdict = step.verdict
    if verdict.problem:
        return f"{verdict.problem}."
    whole = verdict.whole
    if whole is None:
        return ""
    sizes = " and ".join(f"{size.shape} (off by {off_text(size.error)})" for size in whole.sizes)
    note = f"; {whole.note}" if whole.note else ""
    return f"Exact in {whole.precision} for the whole network at {sizes}{note}."


def recovered(recovery: Recovery) -> str:
    """One sentence on a training since the rewrite: how long, on what, and what it brought."""
    data = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in recovery.data.items() if value is not None)
    steps = count(recovery.steps, "step")
    before, after, original = recovery.psnr_before, recovery.psnr_after, recovery.psnr_original
    if not recovery.best_step:
        return f"Training for {steps} ({data}) gave nothing better than the weights from before: {decibels(before)}."
    against = "to the original's output" if original is None else f"(the original: {decibels(original)})"
    return (
        f"Recovered by distillation, {steps} ({data}): validation PSNR {decibels(before)} → {decibels(after)} "
        f"{against}, weights of step {recovery.best_step}."
    )


def amount_rows(report: Report) -> list[tuple[str, str, str, str]]:
    """Parameters and MACs: the word, before, after, and the change."""
    before, after = report.before, report.after
    amounts = (("Parameters", before.parameters, after.parameters), ("MACs", before.macs, after.macs))
    return [(word, quantity(was), quantity(now), change(was, now)) for word, was, now in amounts]


STAGE_HEADER = ("stage", "parameters", "MACs", "share of MACs")


def stage_rows(report: Report) -> list[tuple[str, str, str, str]]:
    """Each stage's parameters, MACs and share of the MACs, before → after the roadmap."""
    later = {stage.name: stage for stage in report.after.stages}
    pairs = ((stage, later[stage.name]) for stage in report.before.stages if stage.name in later)
    return [
        (
            was.name,
            f"{quantity(was.parameters)} → {quantity(now.parameters)}",
            f"{quantity(was.macs)} → {quantity(now.macs)}",
            f"{100 * was.macs_share:.1f} → {100 * now.macs_share:.1f} %",
        )
        for was, now in pairs
    ]


def costs(report: Report) -> str:
    """A sentence where the roadmap makes the network cost more than before; else empty."""
    before, after = report.before.macs, report.after.macs
    if after <= before:
        return ""
    return (
        f"More MACs than before ({change(before, after)}): measure whether it is faster where it will run, or let "
        "the rewrite keep only what is (--engine)."
    )


def shape_of_network(anatomy: Anatomy) -> str:
    """One sentence: a U-Net or not, and why."""
    return f"{'A U-Net' if anatomy.is_unet else 'Not a U-Net'}: {anatomy.reason}."


def shapes(inputs: Iterable[TensorShape]) -> str:
    """The example inputs: `1x3x256x256`."""
    return ", ".join("x".join(map(str, spec.shape)) or "scalar" for spec in inputs)


def options_text(options: Mapping[str, Any]) -> str:
    """`portion=1/4, kinds=depthwise+dense`; of layers that are named, only how many names there are."""
    shown = {key: value for key, value in options.items() if key != "layers"}
    parts = [f"{key}={'+'.join(map(str, value)) if isinstance(value, list) else value}" for key, value in shown.items()]
    if "layers" in options:
        parts.append(f"layers={count(len(options['layers']), 'glob')}")
    return ", ".join(parts)


_ADJUSTED = ("compensated", "calibrated", "reordered")


def rewritten(step: Step) -> list[Edit]:
    """The edits that put another layer in place or took one away."""
    return [edit for edit in step.edits if edit.fate not in _ADJUSTED]


def calibrated(step: Step) -> list[Edit]:
    """The layers that were fitted on example inputs, or whose channels were permuted."""
    return [edit for edit in step.edits if edit.fate in ("calibrated", "reordered")]


def compensated(step: Step) -> list[Edit]:
    """The neighbours whose weights were adjusted, the layers staying what they are."""
    return [edit for edit in step.edits if edit.fate == "compensated"]


def counted(step: Step) -> list[Edit]:
    """The edits that are counted: what a pass rewrote, or where it rewrites nothing, as calibration, what it fitted."""
    return rewritten(step) or calibrated(step)


def edit_remark(edit: Edit) -> str:
    """Fate of the weights, and the note: `inherited; 1/4 of 6 channels rounded to 2`."""
    return "; ".join(filter(None, (edit.fate, edit.note)))


def grouped(items: Iterable[_Item], key: Callable[[_Item], _Key]) -> dict[_Key, list[_Item]]:
    """Items by a key, in order of first appearance."""
    groups: dict[_Key, list[_Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups
