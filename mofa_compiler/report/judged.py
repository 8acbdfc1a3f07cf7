"""What a network is worth, in words: how much was lost, on which inputs, and what to do about that."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..base.words import count, error_text
from ..result.decisions import TOLD
from ..result.quality import ACCEPTED, chain
from .measured import Quality
from .model import Image, Report, Step
from .text import mean

MOVED = 0.1
"""Share of the output beyond which a rewrite is said to have lost skill, where it was judged on no images"""


def trained(report: Report) -> bool:
    """Whether training has changed the weights since the rewrite."""
    return any(one.best_step for one in report.recoveries)


def known(report: Report) -> list[Quality]:
    """What the network is worth with the weights that it has: on the user's validation set, and on held-out inputs."""
    if trained(report):
        return []
    decided = None if report.decisions is None else report.decisions.quality
    return [one for one in (report.validation, report.quality or decided) if one is not None]


def quality(report: Report) -> str:
    """A sentence on each, or else on PSNR and SSIM of the report's images with a known target; empty without any.

    What `loss` says already is left out.
    """
    if found := known(report):
        said = loss(report)
        return " ".join(f"Quality: {one.sentence}." for one in found if one.sentence not in said)
    images = with_target(report)
    if not images:
        return ""

    names = ("input", "original", "rewritten")
    psnr = f"{chain({name: mean(getattr(image.psnr, name) for image in images) for name in names})} dB PSNR"
    before, after = (mean(getattr(image.ssim, name) for image in images) for name in ("original", "rewritten"))
    ssim = "" if before is None or after is None else f", SSIM {before:.3f} → {after:.3f}"
    return f"Quality: on {count(len(images), 'image')}{sources(images)}: {psnr}{ssim}."


def loss(report: Report) -> str:
    """A sentence where trained weights lost more than what goes unseen, and what to do about that; else empty."""
    if report.checkpoint == "" or not any(step.edits for step in report.passes):
        return ""
    before, after = mean_psnr(report)
    moved = report.passes[-1].verdict.accumulated
    if found := known(report):
        lost = next((f"Much was lost: {one.sentence}" for one in found if not one.acceptable), "")
    elif before is not None and after is not None:
        lost = f"Much was lost: {before - after:.2f} dB" if before - after > ACCEPTED["loss"] else ""
    else:
        is_told = moved is not None and moved > MOVED and not trained(report) and not _is_unknown(report)
        lost = f"The output moved by {error_text(moved)}, which is much" if is_told else ""
    return f"{lost}. {_advice(report)}" if lost else ""


def unknown(report: Report) -> str:
    """A sentence where trained weights were judged on no images; else empty."""
    if not _is_unknown(report):
        return ""
    verdict = report.passes[-1].verdict
    moved = f"{error_text(verdict.accumulated)} on the {verdict.measured_on}"
    return (
        f"What was lost is unknown: the output moved by {moved}, "
        "which says little of others. Judge it on images (--calibrate, or --eval with yours)."
    )


def opening(report: Report) -> Iterator[str]:
    """What has to be known first: what was lost where that is much or unknown, and what the figures do not fit."""
    yield from filter(None, (loss(report), unknown(report), *dict.fromkeys(one.doubt for one in known(report))))


def thrown_away(report: Report) -> str:
    """A sentence on steps of the calibration that were taken back; empty where there are none."""
    found = [step for step in report.passes if _not_kept(step)]
    return " ".join(
        f"Thrown away of the calibration: {_not_kept(step)} (error of the output there: "
        f"{step.options.get('output_error', 'not known')}); with more inputs it may be worth keeping."
        for step in found
    )


def too_few(report: Report) -> str:
    """A sentence where a calibration had too few inputs for what it fitted; empty where it had enough."""
    found = next((str(step.options["too_few"]) for step in report.passes if "too_few" in step.options), "")
    if not found:
        return ""
    return f"Too few calibration inputs: {found}. Give more or larger ones (--calibrate, --crops, --crop-size)."


def mean_psnr(report: Report) -> tuple[float | None, float | None]:
    """In dB, of the original and of the rewritten network, over the images with a known target; None without any."""
    images = with_target(report)
    return mean(image.psnr.original for image in images), mean(image.psnr.rewritten for image in images)


def with_target(report: Report) -> list[Image]:
    """The images whose outputs were compared with a known target."""
    return [one for one in report.images if None not in (one.psnr.original, one.psnr.rewritten)]


def sources(images: Iterable[Image]) -> str:
    """Where images come from, in parentheses behind a space; empty where that is not known."""
    found = "; ".join(sorted({image.source for image in images if image.source}))
    return f" ({found})" if found else ""


def _not_kept(step: Step) -> str:
    return str(step.options.get("not_kept", ""))


def _is_unknown(report: Report) -> bool:
    """Whether something was lost, by trained weights, and nothing says how much."""
    if report.checkpoint == "" or trained(report) or known(report) or with_target(report):
        return False
    inexact = any(step.edits and not step.exact for step in report.passes)
    return inexact and all(step.name != "calibration" for step in report.passes)


def _advice(report: Report) -> str:
    decided = report.decisions is not None and report.decisions.chosen != TOLD
    bound = "bound it closer (--max-loss)" if decided else "bound it (--engine with --max-loss, not --as-told)"
    fitted = any(step.name == "calibration" for step in report.passes)
    images = "on more images like those" if fitted else "on images like those"
    return (
        f"To keep more, {bound}, calibrate {images} that it will meet (--calibrate, --crops), or train it on "
        "(mofa recover)."
    )
