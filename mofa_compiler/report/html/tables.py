"""The rows of the page's tables: passes, stages, edits and refusals, in words that are ready to print."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from ...base import spelling, words
from ...base.significance import widened
from .. import decided, text
from ..document import Block, Code, Details, Notice, Paragraph, Table
from ..measured import Alternative, Compared, Decisions, Recovery
from ..model import Edit, Report, StageCost, Step
from ..stages import outcomes
from .headline import conditions, milliseconds

OTHER = "other"
"""The stage of what belongs to none, as in the totals"""

FATES = {
    "exact": "computes what it did before, with new weights",
    "merged": "took over what its neighbours computed: the product of their weights",
    "inherited": "weights made from the old ones by a formula; no data was needed",
    "compensated": "the same layer, its weights adjusted because a neighbour was rewritten",
    "calibrated": "weights fitted on example inputs",
    "reordered": "the same weights, channels in another order",
    "fresh": "random weights, which have to be trained",
    "removed": "the layer is gone",
}
_GLUE = "\N{NO-BREAK SPACE}"
_CALIBRATION = "Fit the weights to example inputs."


@dataclass(frozen=True)
class Row:
    """One edit, as the page shows it.

    Attributes:
        number: its place among the edits of all passes, from 0.
        step: the pass, from 1.
        stage: name of the stage, `other` where it is in none.
        edit: the edit as in the report.
        parameters, macs: the changes, as text.
        ms: change of the time of the layer's piece of the network, where it was measured; `time` is that as text.
        accuracy: exact or approximate, with the error.
    """

    number: int
    step: int
    stage: str
    edit: Edit
    parameters: str
    macs: str
    ms: float | None
    time: str
    accuracy: str


def edits(report: Report) -> Iterator[Row]:
    """Every edit of every pass, in order."""
    times = _times(report)
    last = {edit.path: id(edit) for step in report.passes for edit in text.rewritten(step)}
    number = 0
    for index, step in enumerate(report.passes, 1):
        for edit in step.edits:
            # A time is that of the layer after all passes: it stands once, at the last of its edits.
            ms = times.get(edit.path) if last.get(edit.path) == id(edit) else None
            yield Row(
                number=number,
                step=index,
                stage=edit.stage or OTHER,
                edit=edit,
                parameters=words.signed(edit.parameters),
                macs=words.signed(edit.macs),
                ms=ms,
                time="" if ms is None else f"{'+' if ms > 0 else '−'}{milliseconds(abs(ms))}",
                accuracy=_accuracy(edit, step),
            )
            number += 1


def _times(report: Report) -> dict[str, float]:
    """By how much every layer that was timed became slower (or, below 0, faster), in ms."""
    found: dict[str, float] = {}
    decisions = report.decisions
    for one in decisions.layers if decisions and decided.carried_out(decisions) else ():
        before, after = one.original.ms, one.choice.ms
        if before is not None and after is not None and one.choice is not one.original:
            found.update(dict.fromkeys(one.paths, after - before))
    return found


def _accuracy(edit: Edit, step: Step) -> str:
    if text.is_exact(edit, step):
        return "exact" if edit.error is None else f"exact (off by {words.off(edit.error)})"
    error = words.error_text(step.verdict.relative_error)
    return f"approximate, {error.replace(' ', _GLUE)}"


def refusals(report: Report) -> list[dict[str, Any]]:
    """Layers of the right kind that were left alone, by pass and reason: `{"step", "pass", "reason", "stages",
    "layers"}`, `layers` being `[(path, short form)]`."""
    found = []
    for index, step in enumerate(report.passes, 1):
        for reason, group in text.grouped(step.skips, lambda skip: skip.reason).items():
            stages = list(dict.fromkeys(skip.stage or OTHER for skip in group))
            layers = [(skip.path, skip.layer) for skip in group]
            found.append({"step": index, "pass": step.name, "reason": reason, "stages": stages, "layers": layers})
    return found


def steps(report: Report, summaries: Mapping[str, str]) -> list[dict[str, Any]]:
    """One row a pass: what it is, what it did, what it cost or saved and how far it moved the output."""
    rows = []
    for index, step in enumerate(report.passes, 1):
        before, after, verdict = step.before, step.after, step.verdict
        rows.append(
            {
                "number": index,
                "name": step.name,
                "summary": _CALIBRATION if step.name == "calibration" else summaries.get(step.name, ""),
                "options": text.options_text(step.options),
                "rewritten": len(text.rewritten(step)),
                "adjusted": len(step.edits) - len(text.rewritten(step)),
                "refused": len(step.skips),
                "parameters": words.signed(after.parameters - before.parameters),
                "macs": words.signed(after.macs - before.macs),
                "outcome": text.outcome(step),
                "psnr": text.psnr_text(verdict.step_psnr) if step.edits and not step.exact else "",
                "accumulated": words.error_text(verdict.accumulated),
                "checked": text.checked(step),
            }
        )
    return rows


def became(report: Report) -> list[tuple[str, str]]:
    """For each of the report's `layers` what it became, `→ PConv2d(…)`, `removed` or empty, and its MACs before and
    after: `12.6 M → 3.1 M MACs`."""
    forms: dict[str, str] = {}
    for edit in (edit for step in report.passes for edit in step.edits):
        if edit.before != edit.after:
            forms[edit.path] = f"→ {edit.after or 'removed'}"
        elif not forms.get(edit.path, "").startswith("→"):
            forms[edit.path] = f"weights {edit.fate}"
    later: Counter[str] = Counter()
    for layer in report.rewritten_layers:
        for path in accumulate(layer.path.split("."), "{}.{}".format):
            later[path] += layer.macs
    found = []
    for layer in report.layers:
        before, after = words.quantity(layer.macs), words.quantity(later[layer.path])
        changed = layer.path in forms and bool(later) and after != before
        found.append(
            (
                spelling.printable(forms.get(layer.path, "")),
                f"{before} → {after} MACs" if changed else f"{before} MACs",
            )
        )
    return found


def stages(report: Report) -> list[dict[str, Any]]:
    """One row a stage: parameters, MACs and share of them before and after, whether it is cheap, the number of its
    edits, and how many of its layers were edited and were only refused."""
    later = {stage.name: stage for stage in report.after.stages}
    units = {stage.name: stage.units for stage in report.anatomy.stages}
    edited: dict[str, int] = {}
    for edit in (edit for step in report.passes for edit in step.edits):
        edited[edit.stage or OTHER] = edited.get(edit.stage or OTHER, 0) + 1
    happened = {stage or OTHER: layers for stage, (_, *layers) in outcomes(report.passes).items()}
    known = [stage.name for stage in report.before.stages]
    lost = [name for name in dict.fromkeys((*later, *happened)) if name not in known]
    amounts = ("parameters", "macs", "vanilla")
    shares = {f"{key}_share": 0.0 for key in amounts}
    nothing = StageCost(name="", **dict.fromkeys(amounts, 0), **shares)
    rows = []
    for name, stage in (*((stage.name, stage) for stage in report.before.stages), *((name, nothing) for name in lost)):
        after = later.get(name, nothing)
        rows.append(
            {
                "name": name,
                "units": units.get(name, ()),
                "parameters": (words.quantity(stage.parameters), words.quantity(after.parameters)),
                "macs": (words.quantity(stage.macs), words.quantity(after.macs)),
                "shares": (_percent(stage.macs_share), _percent(after.macs_share)),
                "cheap": name in report.structure.cheap.stages,
                "edits": edited.get(name, 0),
                "layers": happened.get(name, (0, 0)),
            }
        )
    return rows


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def decisions(found: Decisions) -> Iterator[Block]:
    """What was decided by measurement: whole networks, and every group of equal layers with all that was tried."""
    where, kept = conditions(found.conditions), decided.carried_out(found)
    yield Paragraph(f"{found.sentence[:1].upper()}{found.sentence[1:]}.")
    networks = found.networks
    note = f"Whole networks against the original, on {where}; each interval is widened by the noise of the measurement."
    yield _compared(((f"{one.name} (chosen)" if one.name == found.chosen else one.name, one) for one in networks), note)
    if sentence := decided.not_kept(found):
        yield Notice(sentence)
    if found.layers:
        picked = "chosen" if kept else "picked, but not kept,"
        yield Paragraph(f"What was {picked} for each group of equal layers, timed with every alternative:", "soft")
    for one in found.layers:
        summary = (Code(one.layer), f" {shortlist(one.paths)}: {one.chosen} ({one.reason})")
        note = "; ".join(f"{other.name}: {other.problem}" for other in one.alternatives if other.problem)
        yield Details(summary, (_compared(((other.name, other) for other in one.alternatives), note),))


def _compared(named: Iterable[tuple[str, Alternative | Compared]], note: str) -> Table:
    rows = []
    for name, one in named:
        interval = one.interval and widened(one.interval, one.control if isinstance(one, Compared) else None)
        said = "{:.2f} to {:.2f}".format(*interval) if interval else ""
        rows.append((name, milliseconds(one.ms), "" if one.ratio is None else f"{one.ratio:.2f}", said))
    header = ("", "time", "÷ original's", "95 % interval")
    return Table(header, tuple(rows), "lrrr", "What was measured", note=note)


def recoveries(found: Sequence[Recovery]) -> Iterator[Block]:
    """Every training since the rewrite: a sentence, and its validations."""
    for one in found:
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


def shortlist(names: Sequence[str], most: int = 3) -> str:
    """`a, b, c and 4 more`."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
