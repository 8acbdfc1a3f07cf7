"""A result at a prompt: what it is in a line, and as a small table where HTML is shown. No network is run for it."""

from __future__ import annotations

from html import escape

from ..base import spelling, words
from ..result.rewrite import Rewrite


def line(rewrite: Rewrite) -> str:
    """`<Result of NAFNet by roadmap mofa: 1.2 M → 850 k parameters, 2.1 G → 1.5 G MACs; 0.12 dB lost on …>`."""
    amounts = ", ".join(f"{before} → {after} {name}" for name, before, after, _ in _rows(rewrite))
    judged = rewrite.validation or rewrite.quality
    if judged is not None and not any(one.improved for one in rewrite.provenance.recoveries):
        amounts += f"; {judged.said} on {judged.on}"
    return spelling.printable(
        f"<Result of {rewrite.original.program.name} by roadmap {rewrite.roadmap.name}: {amounts}>"
    )


def table(rewrite: Rewrite) -> str:
    """The same as HTML."""
    title = spelling.printable(f"{rewrite.original.program.name}, roadmap {rewrite.roadmap.name}")
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in _rows(rewrite))
    header = "<tr><th></th><th>before</th><th>after</th><th>change</th></tr>"
    return f"<table><caption>{escape(title)}</caption>{header}{rows}</table>"


def _rows(rewrite: Rewrite) -> list[tuple[str, str, str, str]]:
    pairs = {
        "parameters": (rewrite.before.parameters, rewrite.after.parameters),
        "MACs": (rewrite.before.macs, rewrite.after.macs),
    }
    return [(name, words.quantity(a), words.quantity(b), words.change(a, b)) for name, (a, b) in pairs.items()]
