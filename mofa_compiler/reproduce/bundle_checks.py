"""A bundle against its own recipe, carried out anew: files, weights, source and report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..analysis.fingerprint import checksum
from ..base.errors import ReportError, one_line
from ..base.words import error_text
from ..bundle.files import KEYMAP, REPORT, REPORT_PAGE, REPORT_TEXT, WEIGHTS
from ..bundle.original import CALIBRATION, CHECKSUM, MADE_BY, REWRITE, read_marks
from ..graph.call_spec import specs
from ..numerics.error_sums import Figures
from ..numerics.running import rounding, run_saved, values
from ..numerics.sizes import another_size
from ..report.model import Report
from ..report.reading import OLD, read_document, read_report, written_by
from ..result.rewrite import Rewrite
from ..result.verdict import Check, Verdict
from .written_again import Written, check_written_reports


def check_bundle(
    folder: Path,
    document: Mapping[str, Any],
    rewrite: Rewrite,
    shipped: nn.Module,
    found: Sequence[Verdict],
    written: Written,
    *,
    trained: bool,
) -> list[Check]:
    """Look at a bundle's files, weights, source and reports.

    Args:
        folder: the bundle.
        document: its recipe.
        result: the same, carried out anew, with `found` for its verdicts.
        shipped: the network that it holds.
        found: verdicts on the passes of `result`.
        written: what was seen before anything of the bundle was run.
        trained: the weights were trained by another program since.
    """
    missing = [file for file in (KEYMAP, REPORT, REPORT_TEXT, REPORT_PAGE) if not (folder / file).is_file()]
    files = Check("files", not missing, f"there is no {', '.join(missing)}" if missing else "all there")
    return [
        files,
        written.original,
        written.recipe,
        written.keymap,
        _weights(folder, rewrite, shipped, trained),
        _source(written, rewrite, shipped) if written.source.ok else written.source,
        _report(folder, document, rewrite, found),
    ]


def _weights(folder: Path, rewrite: Rewrite, shipped: nn.Module, trained: bool) -> Check:
    """The saved weights against their checksum and against those that the recipe makes of this original."""
    state, made = shipped.state_dict(), rewrite.rewritten.program.state()
    marks = read_marks(folder / WEIGHTS)
    infinite = [key for key, tensor in state.items() if not bool(torch.isfinite(tensor).all())]
    differing = [key for key, tensor in made.items() if not _same(tensor, state.get(key))]
    share = f"{len(made) - len(differing)} of {len(made)} tensors are those that the recipe makes of this original"
    ok, detail = False, ""
    if infinite:
        detail = f"{infinite[0]} in {WEIGHTS} holds NaN or infinite values"
    elif CHECKSUM in marks and not trained and marks[CHECKSUM] != checksum(state):
        first = f"; the first that differs from what the recipe makes is {differing[0]}" if differing else ""
        detail = f"{WEIGHTS} was changed since it was saved: its checksum does not fit{first}"
    elif not differing:
        ok, detail = True, f"all {len(made)} tensors are those that the recipe makes of this original"
    elif trained or marks.get(MADE_BY, REWRITE) != REWRITE:
        by = marks.get(MADE_BY, "training") if not trained else "training"
        ok, detail = True, f"{share}, the others come from {by}: not compared"
    elif MADE_BY in marks:
        detail = f"{differing[0]} is not what the recipe makes of this original: another checkpoint? ({share})"
    else:
        detail = (
            f"{WEIGHTS} was not written by mofa-compiler, and {differing[0]} is not what the recipe makes of this "
            f"original ({share}): if it was trained since, say so (--trained)"
        )
    return Check("weights", ok, detail)


def _same(made: Tensor, saved: Tensor | None) -> bool:
    """Whether two tensors are equal up to the rounding of another machine, or of the precision that was saved."""
    if saved is None or made.shape != saved.shape or made.is_floating_point() != saved.is_floating_point():
        return False
    if not made.is_floating_point():
        return made.dtype == saved.dtype and torch.equal(made, saved.to(made.device))
    expected = made.detach().to(saved.dtype).double()
    error = float((saved.to(made.device).detach().double() - expected).norm())
    tolerance = max(100 * torch.finfo(made.dtype).eps, 2 * torch.finfo(saved.dtype).eps)
    return error <= tolerance * float(expected.norm())


def _source(written: Written, rewrite: Rewrite, shipped: nn.Module) -> Check:
    """`model.py` against the graph that the recipe makes, both with the saved weights, at two sizes."""
    problem = "model.py is not what the recipe makes: "
    twin = written.twin
    tolerance = rounding(rewrite.original.program)
    other, _, _ = another_size(rewrite.rewritten, rewrite.example)
    calls = [rewrite.example, *([other] if other else ())]
    for call in calls:
        figures = Figures()
        try:
            figures.add(values("the recipe", run_saved(twin, call)), values("model.py", run_saved(shipped, call)))
        except Exception as error:  # whatever somebody else's source raises
            return Check("source", False, f"{problem}{one_line(error)}")
        if figures.error and not figures.relative_error <= tolerance:
            off = f"with the same weights the output at {specs(call)} is off by {error_text(figures.relative_error)}"
            return Check("source", False, problem + off)
    sizes = " and ".join(str(specs(call)) for call in calls)
    return Check("source", True, f"{written.source.detail}; with the saved weights it computes the same at {sizes}")


def _report(folder: Path, document: Mapping[str, Any], rewrite: Rewrite, found: Sequence[Verdict]) -> Check:
    """What reports say against what comes out now: costs and words always, figures where the inputs are the same."""
    file = folder / REPORT
    if not file.is_file():
        return Check("report", False, f"there is no {file.name}")
    try:
        if (data := read_document(folder))["schema"] == OLD:
            return Check("report", True, f"{file.name} is {written_by(data)}: not compared")
        report = read_report(folder)
    except ReportError as error:
        return Check("report", False, str(error))
    if difference := next(_differences(report, rewrite, found), ""):
        return Check("report", False, f"{file.name} says {difference}: made from another checkpoint, or changed")
    if not (written := check_written_reports(folder, document, rewrite)).ok:
        return written
    if not found:
        return Check("report", True, "parameters and MACs repeat; there are no passes")
    measured = {step.verdict.measured_on for step in report.passes}
    if measured == {found[0].measured_on}:
        return Check("report", True, f"parameters, MACs and output errors repeat, on the {found[0].measured_on}")
    where = next(filter(None, measured), "another input")
    return Check("report", True, f"parameters and MACs repeat; its output errors are on the {where}: not compared")


def _differences(report: Report, rewrite: Rewrite, found: Sequence[Verdict]) -> Iterator[str]:
    """What a report says otherwise than what comes out now."""
    for key, totals in (("before", rewrite.before), ("after", rewrite.after)):
        for amount in ("parameters", "macs"):
            now = getattr(totals, amount)
            if (said := getattr(getattr(report, key), amount)) != now:
                yield f"{said:,} {amount} {key} the rewrite, and it is {now:,}"
    tolerance = rounding(rewrite.original.program)
    names = [step.name for step in report.passes]
    fitted = names.index(CALIBRATION) if CALIBRATION in names else len(names)
    steps = [step for step in report.passes if step.name != CALIBRATION]  # which the recipe has not
    for index, (step, verdict) in enumerate(zip(steps, found, strict=False)):
        if step.name != verdict.pass_name:
            yield f"{step.name} where the recipe has {verdict.pass_name}"
        if index >= fitted or step.verdict.measured_on != verdict.measured_on:
            continue  # behind a calibration other weights are measured
        for key in ("relative_error", "accumulated"):
            said, now = getattr(step.verdict, key), getattr(verdict, key)
            if said is not None and not abs(said - now) <= tolerance + 0.01 * now:
                what = "moved the output by" if key == "relative_error" else "left the output off the original's by"
                yield f"{verdict.pass_name} {what} {error_text(said)}, and it is {error_text(now)}"
