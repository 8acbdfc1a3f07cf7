"""A document as GitHub-flavoured Markdown, to paste in a pull request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ...base.spelling import code_span as code
from ...base.spelling import html_in_markdown
from ...base.spelling import markdown as escape
from .blocks import (
    Block,
    Code,
    Details,
    Document,
    Group,
    Groups,
    Heading,
    Notice,
    Paragraph,
    Table,
    Words,
    inline,
    plain,
)

_PATHS = 8
"""Of a group's layers"""


def render(document: Document) -> str:
    """The whole of it."""
    return "\n\n".join([f"## {_written(document.title)}", *_rendered(document.blocks)]) + "\n"


def _rendered(blocks: Iterable[Block]) -> Iterator[str]:
    for block in blocks:
        match block:
            case Heading(words) | Paragraph(words):
                yield _written(words)
            case Notice(words):
                yield f"**Note:** {_written(words)}"
            case Table():
                yield _table(block)
            case Groups(groups):
                yield "\n".join(map(_group, groups))
            case Details(summary, inner):
                folded = html_in_markdown(plain(summary))
                yield "\n\n".join([f"<details><summary>{folded}</summary>", *_rendered(inner), "</details>"])


def _written(words: Words) -> str:
    return "".join(code(part.text) if isinstance(part, Code) else _escaped(part) for part in inline(words))


def _escaped(part: str) -> str:
    """Text without markup, and with the spaces at its ends, which stand beside code."""
    before, after = (" " * found for found in (part.startswith(" "), part.endswith(" ") and part.strip() != ""))
    return f"{before}{escape(part)}{after}"


def _table(table: Table) -> str:
    rule = ("--:" if side == "r" else ":--" for side in table.sides)
    rows = (map(_cell, row) for row in table.rows)
    lines = [f"| {' | '.join(row)} |" for row in (map(escape, table.header), rule, *rows)]
    return "\n".join([*lines, *(["", escape(table.note)] if table.note else [])])


def _cell(words: Words) -> str:
    """A pipe would end a cell even inside a code span."""
    spans = (code(one.text).replace("|", "\\|") if isinstance(one, Code) else _escaped(one) for one in inline(words))
    return "".join(spans)


def _group(group: Group) -> str:
    more = len(group.paths) - _PATHS
    paths = ", ".join(map(code, group.paths[:_PATHS])) + (f", … and {more} more" if more > 0 else "")
    note = f" ({escape(group.note)})" if group.note else ""
    return f"- {len(group.paths)} × {_written(group.words)}{note}: {paths}"
