"""The comparison as GitHub-flavoured Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...base.spelling import code_span as code
from ...base.spelling import html_in_markdown
from ...base.spelling import markdown as escape
from . import tables
from .tables import Group, Table

_PATHS = 8


def render(data: Mapping[str, Any]) -> str:
    """What `compare` returned as Markdown, to paste in a pull request."""
    blocks = [
        f"## {escape(tables.heading(data))}",
        _table(tables.sizes(data)),
        escape(tables.quality(data)),
        *(f"**Note:** {escape(note)}" for note in data["notes"]),
        *(f"{escape(table.title)}\n\n{_table(table)}" for table in tables.times(data)),
        *filter(None, [escape(tables.timing(data))]),
    ]
    for difference, network in zip(data["differences"], data["networks"][1:], strict=True):
        blocks.append(
            _difference(difference)
            if difference
            else f"The layers of {code(network['name'])} are not known: its report, or the first, is an older one."
        )
    return "\n\n".join(blocks) + "\n"


def _table(table: Table) -> str:
    rule = (":--", *("--:" for _ in table.header[1:]))
    rows = [table.header, rule, *((code(row[0]).replace("|", "\\|"), *map(escape, row[1:])) for row in table.rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _difference(difference: Mapping[str, Any]) -> str:
    summary = html_in_markdown(tables.counts(difference))
    lines = [_line(group, difference) for group in tables.groups(difference)]
    if not lines:
        return escape(tables.counts(difference))
    return "\n\n".join([f"<details><summary>{summary}</summary>", "\n".join(lines), "</details>"])


def _line(group: Group, difference: Mapping[str, Any]) -> str:
    more = len(group.paths) - _PATHS
    paths = ", ".join(map(code, group.paths[:_PATHS])) + (f", … and {more} more" if more > 0 else "")
    if group.before and group.after:
        form = f"{code(group.before)} → {code(group.after)}"
    else:
        form = f"{code(group.before or group.after)} only in {code(difference['first' if group.before else 'other'])}"
    return f"- {len(group.paths)} × {form}: {paths}"
