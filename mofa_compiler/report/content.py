"""A report as a document: built once of these parts, which Markdown, a terminal and a page put in their order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from ..base import words
from . import decided, judged, text
from .document import Block, Code, Details, Document, Group, Groups, Notice, Paragraph, Table, Toned, Words
from .model import Edit, Report, Step

Times = Mapping[tuple[int, str], float]
"""By pass, from 1, and path"""

Detail = Literal["few", "tables", "all", "every"]
"""Of edits: like ones together, with some of their paths; a table; that and every path; a table with adjusted ones"""


def for_reading(report: Report) -> Document:
    """What matters first, and what every pass did folded below it."""
    shapes = text.shapes(report.inputs)
    title = (f"{report.model} rewritten by roadmap ", Code(report.roadmap.name), f", input {shapes}")
    return Document(
        title,
        (
            *traded(report),
            _amounts(report),
            Paragraph(" ".join(filter(None, (text.accuracy(report), text.costs(report))))),
            *origin(report),
            *_decisions(report),
            *passes(report),
            *stages(report),
            *details(report, "tables"),
            Paragraph(", ".join(f"{name} {version}" for name, version in report.versions.items()), "soft"),
        ),
    )


def for_screen(report: Report, verbose: bool = False) -> Document:
    """What matters last, for it stays on the screen; the summary of a preset fits 24 lines of 80 columns."""
    title = f"{report.model}, roadmap {report.roadmap.name}, input {text.shapes(report.inputs)}"
    costs = text.costs(report)
    return Document(
        title,
        (
            *details(report, "all" if verbose else "few"),
            *_decisions(report),
            *stages(report),
            _amounts(report),
            Paragraph(text.accuracy(report)),
            *([Paragraph(costs, "warning")] if costs else []),
            *traded(report),
            *origin(report),
            *passes(report),
        ),
    )


def traded(report: Report) -> Iterator[Block]:
    """What was lost where that is much, then what was traded for what."""
    yield from map(Notice, judged.opening(report))
    if report.decisions:
        yield Paragraph(decided.headline(report.decisions), "strong")
    if quality := judged.quality(report):
        yield Paragraph(quality, "strong")
    yield from map(Notice, filter(None, (judged.thrown_away(report), judged.too_few(report))))


def _amounts(report: Report) -> Table:
    header = ("", "before", "after", "change")
    return Table(header, tuple(text.amount_rows(report)), "lrrr", "Parameters and MACs")


def origin(report: Report) -> Iterator[Block]:
    """Where the weights come from, and what the network is."""
    if weights := text.weights(report):
        yield Paragraph(weights)
    if untrained := text.untrained(report):
        yield Notice(untrained)
    yield Paragraph(text.shape_of_network(report.anatomy), "soft")
    for recovery in report.recoveries:
        yield Paragraph(text.recovered(recovery))
    for part in report.opaque:
        yield Notice(("not seen into, and so left alone: ", Code(part.path), f" ({part.cause})"))


def _decisions(report: Report) -> Iterator[Block]:
    found = report.decisions
    if found is None:
        return
    for sentence in filter(None, (decided.not_kept(found), decided.busy(found))):
        yield Notice(sentence)
    if rows := decided.rows(found):
        cells = tuple((Code(name), Code(was), new, ms, Toned(why)) for name, was, new, ms, why in rows)
        yield Table(decided.header(found), cells, "lllrl", "What was decided by measurement", spare=(4,))
    for sentence in filter(None, (decided.kept(found), decided.tried(found))):
        yield Paragraph(sentence, "soft")


def passes(report: Report, summaries: Mapping[str, str] | None = None) -> Iterator[Block]:
    """A row for each; with `summaries` of what they do, where there is room for remarks."""
    if not report.passes:
        kept = "The roadmap has no passes." if report.decisions is None else "No pass was kept."
        yield Paragraph(kept)
        return
    header = ("#", "pass", "edits", "refused", "Δ params", "Δ MACs", "moved by", "so far")
    rows = tuple(
        _pass(index, step, None if summaries is None else summaries.get(step.name, ""))
        for index, step in enumerate(report.passes, 1)
    )
    note = "moved by: the output, by this pass; so far: against the original"
    yield Table(header, rows, "rlrrrrrr", "The passes", spare=(2, 3), name=1, note=note)


def _pass(index: int, step: Step, summary: str | None) -> tuple[Words, ...]:
    before, after = step.before, step.after
    edits = text.counted(step)
    adjusted = len(step.edits) - len(edits)
    psnr = text.psnr_text(step.verdict.step_psnr) if step.edits and not step.exact else ""

    def with_remarks(words: str | Code, *remarks: str | Code) -> Words:
        return words if summary is None else (words, *(Toned(one) for one in remarks if one))

    options = text.options_text(step.options)
    return (
        str(index),
        with_remarks(Code(step.name), summary or "", Code(options) if options else ""),
        with_remarks(str(len(edits)), f"+ {adjusted} adjusted" if adjusted else ""),
        str(len(step.skips)),
        words.signed(after.parameters - before.parameters),
        words.signed(after.macs - before.macs),
        with_remarks(text.outcome(step), f"PSNR {psnr}" if psnr else ""),
        words.error_text(step.verdict.accumulated),
    )


def stages(report: Report) -> Iterator[Block]:
    """What each costs, before and after."""
    if report.passes:
        yield Table(text.STAGE_HEADER, tuple(text.stage_rows(report)), "lrrr", "The stages")


def details(report: Report, detail: Detail) -> Iterator[Block]:
    """What every pass did, folded."""
    times = decided.times(report)
    for index, step in enumerate(report.passes, 1):
        edits = words.count(len(text.counted(step)), "edit")
        said = f"{index}. {step.name}: {edits}, {len(step.skips)} refused"
        yield Details(said, tuple(_step(index, step, detail, times)), f"pass-{index}")


def _step(index: int, step: Step, detail: Detail, times: Times) -> Iterator[Block]:
    if options := text.options_text(step.options):
        yield Paragraph(Code(options), "soft", 3)
    if edits := step.edits if detail == "every" else text.rewritten(step):
        yield _alike(edits) if detail == "few" else _edits(index, step, edits, times)
    if detail != "every":
        yield from _adjusted(step, detail)
    if sentence := text.checked(step):
        yield Paragraph(sentence, "" if step.verdict.holds else "bad", 3)
    if step.skips:
        yield Paragraph("Left alone:", "warning", 3)
        refused = text.grouped(step.skips, lambda skip: skip.reason)
        yield Groups(tuple(Group(reason, tuple(one.path for one in group)) for reason, group in refused.items()))
    if not step.edits and not step.skips:
        yield Paragraph("No layer of this pass's kind.", "soft", 3)


def _adjusted(step: Step, detail: Detail) -> Iterator[Block]:
    """Layers that stay what they are, with other weights, in few words."""
    if neighbours := text.compensated(step):
        stages = ", ".join(dict.fromkeys(edit.stage or "no stage" for edit in neighbours))
        yield Paragraph(f"Weights adjusted in {words.count(len(neighbours), 'neighbour')} ({stages}).", "good", 3)
        if detail == "all":
            yield Groups((Group("weights adjusted", tuple(edit.path for edit in neighbours)),))
    for fate, fitted in text.grouped(text.calibrated(step), lambda edit: edit.fate).items():
        number = f"{words.count(len(fitted), 'layer')} {fate}"
        yield Paragraph(number, "good", 3) if detail == "few" else Details(number, (_fitted(fitted),))


def _form(before: str, after: str) -> tuple[str | Code, ...]:
    if before == after:
        return Code(before), ", same layer"
    return Code(before), " → ", Code(after) if after else "removed"


def _alike(edits: Sequence[Edit]) -> Groups:
    """By what became of them; of those that went, whatever took them up."""
    alike = text.grouped(edits, lambda edit: (edit.before, edit.after, edit.exact, edit.note if edit.after else ""))
    return Groups(
        tuple(
            Group((*_form(before, after), ", exact" if exact else ""), tuple(one.path for one in group), _notes(group))
            for (before, after, exact, _), group in alike.items()
        )
    )


def _notes(edits: Sequence[Edit]) -> str:
    """The first of different ones, and how many more there are."""
    first, *others = dict.fromkeys(edit.note for edit in edits)
    return f"{first}, … {len(others)} more" if others else first


def _edits(index: int, step: Step, edits: Sequence[Edit], times: Times) -> Table:
    """With the change in time where layers were timed, and how exact an edit is."""
    header = ("layer", "stage", "before → after", "Δ parameters", "Δ MACs", "Δ time", "weights", "function")
    rows = tuple(
        (
            Code(edit.path),
            edit.stage or "",
            _form(edit.before, edit.after),
            words.signed(edit.parameters),
            words.signed(edit.macs),
            decided.signed_time(times.get((index, edit.path))),
            text.edit_remark(edit),
            text.accuracy_of(edit, step),
        )
        for edit in edits
    )
    table = Table(header, rows, "lllrrrll", "Edits", spare=(5, 7))
    return table if times else table.without(5)


def _fitted(edits: Sequence[Edit]) -> Table:
    rows = tuple((Code(edit.path), edit.fate, edit.note) for edit in edits)
    return Table(("layer", "weights", "how"), rows, "lll", "What was fitted")
