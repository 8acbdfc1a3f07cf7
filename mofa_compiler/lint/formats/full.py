"""`full`: for people at a terminal, with the lines of source."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console
from rich.text import Text

from ...base.spelling import printable
from ...base.words import count
from ...report.document.terminal import wrap
from ..finding import Linted, Outcome
from . import source, wording
from .context import Context
from .wording import Group

_NARROWEST = 40
_GLUE = "\N{NO-BREAK SPACE}"  # which `wrap` turns into a space
_STYLES = {"error": "bold red", "warning": "bold yellow", "note": "bold cyan"}


def render(outcome: Outcome, context: Context) -> str:
    """Findings by model; those that one line of source makes and the same passes mend are one entry."""
    file = io.StringIO()
    console = Console(
        file=file,
        width=max(context.width, _NARROWEST),
        force_terminal=context.colour,
        color_system="standard" if context.colour else None,
        no_color=context.monochrome,
        legacy_windows=False,
        markup=False,
        highlight=False,
        emoji=False,
    )
    for linted in outcome.models:
        _print(console, _model(linted, context, console.width))
        console.print()
    _print(console, _styled(wrap(f"{wording.headline(outcome)}.", console.width, 0, 2), "bold"))
    if remarks := "; ".join(wording.remarks(outcome)):
        _print(console, _styled(wrap(f"{remarks[0].upper()}{remarks[1:]}.", console.width, 0, 2)))
    return file.getvalue()


def _print(console: Console, lines: Iterable[Text]) -> None:
    for line in lines:
        console.print(line, no_wrap=True, overflow="ignore", crop=False)


def _styled(lines: Iterable[str], style: str = "") -> Iterator[Text]:
    return (Text(line, style) for line in lines)


def _model(linted: Linted, context: Context, width: int) -> Iterator[Text]:
    yield from _styled(wrap(wording.model_line(linted), width, 0, 2), "bold underline")
    groups = wording.grouped(linted.findings)
    if not groups:
        yield Text("  no findings", "green")
    for group in groups:
        yield Text()
        yield from _entry(group, linted, context, width)


def _entry(group: Group, linted: Linted, context: Context, width: int) -> Iterator[Text]:
    first = group.first
    title = f"{printable(first.code)} {printable(first.rule)}: {group.title(context.rules)}"
    yield from _title(first.level, title, width)
    gutter = 2
    lines: list[Text] = []
    if first.position:
        gutter, lines = source.snippet(first.position, context.root, width)
    if where := wording.spot(first, context.root):
        yield from _styled(wrap(f"--> {where}", width, gutter, gutter + 4), "blue")
    yield from lines
    margin = f"{'':{gutter}} "
    if lines:
        yield Text(f"{margin}|", "blue")
    for label, text in _notes(group):
        wrapped = wrap(f"= {label}: {text}", width, gutter + 1, gutter + 5 + len(label))
        for index, line in enumerate(wrapped):
            styled = Text(line)
            if not index:
                styled.stylize("bold", 0, len(margin) + 2 + len(label) + 1)
            yield styled


def _title(level: str, text: str, width: int) -> Iterator[Text]:
    for index, line in enumerate(wrap(f"{level} {text}", width, 0, 2)):
        styled = Text(line, "bold")
        if not index:
            styled.stylize(_STYLES[level], 0, len(level))
        yield styled


def _notes(group: Group) -> Iterator[tuple[str, str]]:
    """Label and text of what stands below the source."""
    first = group.first
    kinds, more = group.shown_kinds
    if len(kinds) > 1:
        for message, layers in kinds:
            yield _label(layers), f"{message}{f': {_listed(layers)}' if layers else ''}"
        if more:
            yield "more", more
    elif group.layers:
        yield _label(group.layers), _listed(group.layers)
    if fix := first.fix:
        option = "--fix" if fix.exact else f"--fix{_GLUE}--unsafe-fixes"
        yield "fix", f"{wording.how(fix)}, by {option}"
        if effects := wording.effect(fix, group.macs, group.parameters):
            yield "effect", f"{'together ' if len(group.findings) > 1 else ''}{effects}"
    yield "help", f"mofa rule {printable(first.code)}"


def _label(layers: Sequence[str]) -> str:
    return count(len(layers), "layer") if len(layers) > 1 else "layer" if layers else "model"


def _listed(layers: Sequence[str]) -> str:
    """Some of the names; how many more there are is kept on one line."""
    return re.sub(r" and (\d+) more$", rf" and{_GLUE}\1{_GLUE}more", wording.listed(layers))
