"""A report as Markdown, to paste in a pull request."""

from __future__ import annotations

from collections.abc import Sequence

from ..base import words
from ..base.spelling import code_span as code
from ..base.spelling import html_in_markdown
from ..base.spelling import markdown as escape
from . import decided, text
from .model import Decisions, Edit, Report, Skip, Step

_PATHS_PER_REFUSAL = 8


def render(report: Report) -> str:
    """The report of `report.data.report` as GitHub-flavoured Markdown."""
    blocks = [
        f"## {escape(report.model)} rewritten by roadmap {code(report.roadmap.name)}",
        _headline(report),
        escape(" ".join(filter(None, (text.accuracy(report), text.quality(report), text.costs(report))))),
        escape(text.weights(report)),
        *(f"**Note:** {escape(note)}" for note in (text.untrained(report),) if note),
        escape(text.shape_of_network(report.anatomy)),
        *(escape(text.recovered(recovery)) for recovery in report.recoveries),
        _opaque(report),
        _decided(report.decisions),
        _passes(report),
        _table(text.STAGE_HEADER, "lrrr", [(escape(name), *rest) for name, *rest in text.stage_rows(report)]),
        *(_details(index, step) for index, step in enumerate(report.passes, 1)),
        "<sub>" + escape(", ".join(f"{name} {version}" for name, version in report.versions.items())) + "</sub>",
    ]
    return "\n\n".join(filter(None, blocks)) + "\n"


def _cell(markdown: str) -> str:
    """A code span in a table, where a pipe would end the cell even inside the span."""
    return markdown.replace("|", "\\|")


def _table(header: tuple[str, ...], align: str, rows: Sequence[tuple[str, ...]]) -> str:
    rule = tuple("--:" if side == "r" else ":--" for side in align)
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))


def _headline(report: Report) -> str:
    parameters, (_, *macs) = text.amount_rows(report)
    rows = [parameters, (f"MACs at {escape(text.shapes(report.inputs))}", *macs)]
    return _table(("", "before", "after", "change"), "lrrr", rows)


def _decided(decisions: Decisions | None) -> str:
    if not decisions:
        return ""
    rows = [(_cell(code(name)), _cell(code(was)), escape(new), ms) for name, was, new, ms in decided.rows(decisions)]
    table = _table(decided.header(decisions), "lllr", rows) if rows else ""
    before = (decided.headline(decisions), decided.not_kept(decisions))
    return "\n\n".join(filter(None, (*map(escape, before), table, escape(decided.kept(decisions)))))


def _opaque(report: Report) -> str:
    lines = [f"- {code(part.path)}: {escape(part.cause)}" for part in report.opaque]
    return "\n".join(["Not seen into, and so left alone:", "", *lines]) if lines else ""


def _passes(report: Report) -> str:
    rows = []
    for index, step in enumerate(report.passes, 1):
        before, after = step.before, step.after
        rows.append(
            (
                str(index),
                _cell(code(step.name)),
                str(len(text.rewritten(step) or text.calibrated(step))),
                str(len(step.skips)),
                words.signed(after.parameters - before.parameters),
                words.signed(after.macs - before.macs),
                escape(f"{'' if step.exact else 'approximate, '}{text.outcome(step)}"),
                escape(words.error_text(step.verdict.accumulated)),
            )
        )
    header = ("#", "pass", "edits", "refused", "Δ parameters", "Δ MACs", "moved the output by", "so far")
    return _table(header, "rlrrrrrr", rows) if rows else "The roadmap has no passes."


def _fitted(edits: Sequence[Edit]) -> str:
    """A table, folded, of what was fitted to which error."""
    rows = [(_cell(code(edit.path)), escape(edit.fate), escape(edit.note)) for edit in edits]
    table = _table(("layer", "weights", "how"), "lll", rows)
    return f"<details><summary>{words.count(len(edits), 'layer')} calibrated</summary>\n\n{table}\n\n</details>"


def _details(index: int, step: Step) -> str:
    edits, neighbours = text.rewritten(step), text.compensated(step)
    options = text.options_text(step.options)
    blocks = [f"Options: {code(options)}"] if options else []
    if edits:
        blocks.append(_edits(edits))
    if neighbours:
        stages = ", ".join(dict.fromkeys(edit.stage or "no stage" for edit in neighbours))
        blocks.append(f"Weights adjusted in {words.count(len(neighbours), 'neighbour')} ({escape(stages)}).")
    if calibrated := text.calibrated(step):
        blocks.append(_fitted(calibrated))
    if sentence := text.checked(step):
        blocks.append(escape(sentence))
    if step.skips:
        blocks.append(_refusals(step.skips))
    if not step.edits and not step.skips:
        blocks.append("No layer of this pass's kind.")
    summary = f"{index}. {html_in_markdown(step.name)}: {words.count(len(edits), 'edit')}, {len(step.skips)} refused"
    return "\n\n".join(["<details>", f"<summary>{summary}</summary>", *blocks, "</details>"])


def _edits(edits: Sequence[Edit]) -> str:
    rows = [
        (
            _cell(code(edit.path)),
            escape(edit.stage or ""),
            f"{_cell(code(edit.before))} → {_cell(code(edit.after)) if edit.after else 'removed'}",
            words.signed(edit.parameters),
            words.signed(edit.macs),
            escape(text.edit_remark(edit)),
        )
        for edit in edits
    ]
    return _table(("layer", "stage", "before → after", "Δ parameters", "Δ MACs", "weights"), "lllrrl", rows)


def _refusals(skips: Sequence[Skip]) -> str:
    lines = []
    for reason, group in text.grouped(skips, lambda skip: skip.reason).items():
        paths = ", ".join(code(skip.path) for skip in group[:_PATHS_PER_REFUSAL])
        more = f", … and {len(group) - _PATHS_PER_REFUSAL} more" if len(group) > _PATHS_PER_REFUSAL else ""
        lines.append(f"- {len(group)} × {escape(reason)}: {paths}{more}")
    return "\n".join(["Left alone:", "", *lines])
