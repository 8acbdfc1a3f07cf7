"""`markdown`: for a comment on a pull request and for a job summary."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from ...base.spelling import printable
from ...base.words import count, signed
from ..finding import Outcome
from . import wording
from .context import Context
from .wording import Group

_COMMENT_BYTES = 65_000
"""GitHub refuses comments of more than 65,536 characters"""
_ROWS_OPEN = 15
_LAYERS_NAMED = 3
_LAYERS_FOLDED = 200
_SPECIAL = re.compile(r"[\\`*_\[\]<>|~&$]|[@#](?=\w)")
_BARE = re.compile(r"[`|\\]|^\s|\s$|^$")
"""What a code span in a table cannot hold as it is"""


def render(outcome: Outcome, context: Context) -> str:
    """A table, a row for what one line of source makes and the same passes mend, the most important first.

    As many rows as fit in a comment; those after the first fifteen are folded, and so are long lists of layers.
    """
    return fitting(outcome, context, _COMMENT_BYTES)


def fitting(outcome: Outcome, context: Context, room: int) -> str:
    """The report with as many rows as fit in `room` bytes of UTF-8; empty where not even the headline does."""
    groups = wording.grouped(outcome.findings)
    fits, shown = len(groups), len(groups)
    text = _report(outcome, context, groups, shown)
    if len(text.encode()) <= room:
        return text
    fits, too_many = -1, shown
    while too_many - fits > 1:
        shown = (fits + too_many) // 2
        candidate = _report(outcome, context, groups, shown)
        if len(candidate.encode()) <= room:
            fits, text = shown, candidate
        else:
            too_many = shown
    return text if fits >= 0 else ""


def escape(text: str) -> str:
    """Text in which nothing is markup, that breaks no table, and that notifies nobody."""
    return _SPECIAL.sub(_harmless, printable(text)).strip()


def _harmless(match: re.Match[str]) -> str:
    character = match[0]  # a mention survives as an entity, but not with a zero-width space behind the sign
    return f"{character}\u200b" if character in "@#" else f"&#{ord(character)};"


def code(text: str) -> str:
    """A code span that a table cell can hold, whatever is in it."""
    text = printable(text)
    return f"<code>{escape(text)}</code>" if _BARE.search(text) else f"`{text}`"


def _report(outcome: Outcome, context: Context, groups: Sequence[Group], shown: int) -> str:
    targets = wording.targets(outcome)
    several = len(outcome.models) > 1
    rows = [_row(group, targets.get(group.first.model, ""), context, several) for group in groups[:shown]]
    left_out = sum(len(group.findings) for group in groups[shown:])
    remarks = "; ".join(wording.remarks(outcome))
    blocks = [
        f"### mofa lint: {escape(wording.headline(outcome))}",
        "\n".join(f"- {escape(wording.model_line(linted))}" for linted in outcome.models),
        _table(rows[:_ROWS_OPEN], several),
        _folded(count(len(rows) - _ROWS_OPEN, "more row"), _table(rows[_ROWS_OPEN:], several)),
        f"{count(left_out, 'less important finding')} left out for length." if left_out else "",
        *(_layers(group, context) for group in groups[:shown] if len(group.layers) > _LAYERS_NAMED + 1),
        f"{escape(remarks[0].upper() + remarks[1:])}." if remarks else "",
    ]
    return "\n\n".join(filter(None, blocks)) + "\n"


def _table(rows: Sequence[Sequence[str]], several: bool) -> str:
    if not rows:
        return ""
    header = [*(("model",) if several else ()), "rule", "where", "finding", "fix", "Δ MACs", "Δ parameters"]
    rule = [":--"] * (len(header) - 2) + ["--:"] * 2
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))


def _row(group: Group, target: str, context: Context, several: bool) -> list[str]:
    first, fixed_by = group.first, ""
    if fix := first.fix:
        speed = wording.effect(fix, None, None)
        passes = ", then ".join(map(code, fix.passes))
        fixed_by = f"{passes} ({'exact' if fix.exact else 'approximate'}){f', {escape(speed)}' if speed else ''}"
    kinds, more = group.shown_kinds
    level = "" if first.level == "warning" else f"**{first.level}** "
    return [
        *((code(first.model),) if several else ()),
        f"{level}{code(first.code)} {escape(first.rule)}",
        code(wording.spot(first, context.root) or target),
        "<br>".join([*(f"{escape(message)}{_named(layers)}" for message, layers in kinds), *([more] if more else [])]),
        fixed_by,
        "" if group.macs is None else signed(group.macs),
        "" if group.parameters is None else signed(group.parameters),
    ]


def _named(layers: Sequence[str]) -> str:
    return f": {wording.listed([code(layer) for layer in layers], _LAYERS_NAMED)}" if layers else ""


def _layers(group: Group, context: Context) -> str:
    """All layers of a group, folded."""
    where = wording.spot(group.first, context.root)
    title = f"{group.first.code}{f' at {where}' if where else ''}: {count(len(group.layers), 'layer')}"
    return _folded(title, wording.listed([code(layer) for layer in group.layers], _LAYERS_FOLDED))


def _folded(title: str, content: str) -> str:
    return f"<details><summary>{html.escape(title)}</summary>\n\n{content}\n\n</details>" if content else ""
