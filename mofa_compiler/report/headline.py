"""The head of a page: the network before and after in a few figures, and what a reader should beware of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..base import words
from ..base.precision import in_precision
from ..base.significance import noise, widened
from . import judged, text
from .document.blocks import Tone
from .measured import Measurement, Quality, Recovery
from .model import Report
from .summary import conditions, decided_measurement


@dataclass(frozen=True)
class Card:
    """One figure of the network, before and after.

    Attributes:
        label: what it is.
        before: of the original, with its unit; empty where there is one value only.
        after: of the rewritten network.
        change: from the one to the other, in a few words.
        note: what it means and under what conditions it holds.
        tone: `good` or `bad` where that is known, else empty.
    """

    label: str
    before: str
    after: str
    change: str
    note: str
    tone: Tone = ""


def cards(report: Report) -> list[Card]:
    """Parameters, MACs, the time on every engine that was measured, and the quality of the output."""
    return [*_costs(report), *_times(report), *_quality(report)]


def notices(report: Report) -> Iterator[str]:
    """Sentences on what is not as one may expect; usually none."""
    measured = report.measurements or report.decisions
    if costs := "" if measured else text.costs(report):
        yield costs
    yield from (f"{step.name}: {step.verdict.problem}." for step in report.passes if step.verdict.problem)
    if any(recovery.best_step for recovery in report.recoveries):
        yield (
            "Trained since it was rewritten: weights, images and the quality above are of now, the output errors of "
            "the passes of before the training."
        )


def _costs(report: Report) -> Iterator[Card]:
    operations = f"multiply–accumulate operations for one input of {text.shapes(report.inputs)}"
    for row, meaning in zip(text.amount_rows(report), ("numbers that the network learns", operations), strict=True):
        yield Card(*row, meaning)


def _times(report: Report) -> Iterator[Card]:
    yield from map(_time, report.measurements)
    decisions = report.decisions
    if decisions and decisions.conditions.engine not in [one.engine for one in report.measurements]:
        yield from map(_time, decided_measurement(report))
        if decisions.final is None:
            engine = decisions.conditions.engine
            yield Card(f"Time, {engine}", "", "left as it is", "", "no rewrite was faster there")
    elif not report.measurements:
        note = "how fast it is depends on the engine and the machine: mofa measure times it there"
        yield Card("Time", "", "not measured", "", note)


_TONES: dict[str, Tone] = {"faster": "good", "slower": "bad"}


def _time(one: Measurement) -> Card:
    low, high = widened(one.interval, one.control)
    by = f", widened by {100 * noise(one.control):.1f} % of noise"
    return Card(
        label=f"Time, {one.engine}{in_precision(one.precision)}",
        before=text.milliseconds(one.original_ms),
        after=text.milliseconds(one.rewritten_ms),
        change=f"{one.ratio:.2f} × the time: {one.verdict}",
        note=f"{low:.2f} to {high:.2f}: 95 % interval{by}; {conditions(one)}",
        tone=_TONES.get(one.verdict, ""),
    )


def _quality(report: Report) -> list[Card]:
    """On held-out inputs; else against the ground truth where that is known, or against the original."""
    return [_judged(one) for one in judged.known(report)] or [_seen(report)]


def _judged(one: Quality) -> Card:
    tone: Tone = "" if one.acceptable else "bad"
    value, where = one.sentence.partition(" on ")[::2]
    if one.measure == "loss":
        note = f"PSNR against the clean images, on {where}; higher is better"
        return Card("Quality", *_decibels(one.original, one.rewritten), note, tone)
    return Card("Output, against the original's", "", value, "", f"on {where}", tone)


def _seen(report: Report) -> Card:
    last = report.recoveries[-1] if report.recoveries else None
    if last is not None and last.psnr_original is not None:
        note = "PSNR against the clean images, mean of the validation examples of the recovery; higher is better"
        return Card("Quality", *_decibels(last.psnr_original, _reached(last)), note)
    return _of_images(report) or (_of_recovery(last) if last else _of_output(report))


def _reached(recovery: Recovery) -> float | None:
    """The PSNR with the weights that a recovery left."""
    return recovery.psnr_after if recovery.best_step else recovery.psnr_before


def _of_recovery(last: Recovery) -> Card:
    """How close training brought the output to the original's."""
    note = (
        "PSNR of its output against the original's, on the validation examples of the recovery "
        f"({text.decibels(last.psnr_before)} before it); higher is closer"
    )
    return Card("Output, against the original's", "", text.decibels(_reached(last)), "after recovery", note)


def _of_images(report: Report) -> Card | None:
    """Means over the images that have a target."""
    known = judged.with_target(report)
    before, after = judged.mean_psnr(report)
    if before is None or after is None:
        return None
    images = "the image below" if len(known) == 1 else f"mean of the {len(known)} images below"
    note = f"PSNR against the clean image, {images}{judged.sources(known)}; higher is better"
    return Card("Quality", *_decibels(before, after), note)


def _decibels(before: float | None, after: float | None) -> tuple[str, str, str]:
    if before is None or after is None:
        return text.decibels(before), text.decibels(after), ""
    difference = round(after, 2) - round(before, 2)  # of what is shown
    sign = "+" if difference > 0 else "−"
    change = "unchanged" if abs(difference) < 0.005 else f"{sign}{abs(difference):.2f} dB"
    return text.decibels(before), text.decibels(after), change


def _of_output(report: Report) -> Card:
    """How far the output is from the original's: what is known without any image."""
    label = "Output, against the original's"
    if not any(step.edits for step in report.passes):
        return Card(label, "", "the same", "", "nothing was rewritten")
    verdict = report.passes[-1].verdict
    where = f"on the {verdict.measured_on}"
    if judged.unknown(report):
        where += ", which says little of images: what was lost is unknown"
    if verdict.accumulated == 0:
        return Card(label, "", "the same", "", where)
    psnr = text.psnr_text(verdict.psnr)
    change = f"PSNR {psnr}" if psnr else ""
    note = f"size of the difference ÷ size of the output, {where}"
    return Card(label, "", f"{words.error_text(verdict.accumulated)} off", change, note)
