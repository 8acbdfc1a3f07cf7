"""A result at a prompt: what it is in a line, and as a small table where HTML is shown. No network is run for it."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from ..base import spelling, words

if TYPE_CHECKING:
    from ..compiler import Result


def line(result: Result) -> str:
    """`<Result of NAFNet by roadmap mofa: 1.2 M → 850 k parameters, 2.1 G → 1.5 G MACs>`."""
    amounts = ", ".join(f"{before} → {after} {name}" for name, before, after, _ in _rows(result))
    return spelling.printable(f"<Result of {result.original.program.name} by roadmap {result.roadmap.name}: {amounts}>")


def table(result: Result) -> str:
    """The same as HTML."""
    title = spelling.printable(f"{result.original.program.name}, roadmap {result.roadmap.name}")
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in _rows(result))
    header = "<tr><th></th><th>before</th><th>after</th><th>change</th></tr>"
    return f"<table><caption>{escape(title)}</caption>{header}{rows}</table>"


def _rows(result: Result) -> list[tuple[str, str, str, str]]:
    pairs = {
        "parameters": (result.before.parameters, result.after.parameters),
        "MACs": (result.before.macs, result.after.macs),
    }
    return [(name, words.quantity(a), words.quantity(b), words.change(a, b)) for name, (a, b) in pairs.items()]
