"""The comparison as GitHub-flavoured Markdown."""

from __future__ import annotations

from ...base.spelling import code_span as code
from ...base.spelling import html_in_markdown
from ...base.spelling import markdown as escape
from . import tables
from .data import Comparison, Difference
from .tables import Group, Table

_PATHS = 8


def render(data: Comparison) -> str:
    """What `compare` returned as Markdown, to paste in a pull request."""
    blocks = [
        f"## {escape(tables.heading(data))}",
        _table(tables.sizes(data)),
        escape(tables.quality(data)),
        *(f"**Note:** {escape(note)}" for note in data.notes),
        *(f"{escape(table.title)}\n\n{_table(table)}" for table in tables.times(data)),
        *filter(None, [escape(tables.timing(data))]),
    ]
    blocks += map(_difference, data.differences)
    return "\n\n".join(blocks) + "\n"


def _table(table: Table) -> str:
    rule = (":--", *("--:" for _ in table.header[1:]))
    rows = [table.header, rule, *((code(row[0]).replace("|", "\\|"), *map(escape, row[1:])) for row in table.rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _difference(difference: Difference) -> str:
    summary = html_in_markdown(tables.counts(difference))
    lines = [_line(group, difference) for group in tables.groups(difference)]
    if not lines:
        return escape(tables.counts(difference))
    return "\n\n".join([f"<details><summary>{summary}</summary>", "\n".join(lines), "</details>"])


def _line(group: Group, difference: Difference) -> str:
    more = len(group.paths) - _PATHS
    paths = ", ".join(map(code, group.paths[:_PATHS])) + (f", … and {more} more" if more > 0 else "")
    if group.before and group.after:
        form = f"{code(group.before)} → {code(group.after)}"
    else:
        where = difference.first if group.before else difference.other
        form = f"{code(group.before or group.after)} only in {code(where)}"
    return f"- {len(group.paths)} × {form}: {paths}"
