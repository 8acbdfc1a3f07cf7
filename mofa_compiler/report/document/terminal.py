"""A document at a terminal; readable at 80 columns and below."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from ...base.spelling import printable
from .blocks import Block, Details, Document, Group, Groups, Heading, Notice, Paragraph, Table, Tone, plain

_NARROWEST = 40
_LEAST_NAME = 10
"""Columns that a name needs; where a table leaves it less, every cell gets a line of its own"""

_GLUE = "\N{NO-BREAK SPACE}"
_STYLES: dict[Tone, str] = {
    "": "",
    "strong": "bold",
    "soft": "dim",
    "good": "green",
    "warning": "yellow",
    "bad": "red",
}


def show(document: Document, console: Console, verbose: bool = False) -> None:
    """Print all of it; `verbose` shows all paths of groups."""
    print_blocks([Heading(document.title), *document.blocks], console, verbose)


def print_blocks(blocks: Iterable[Block], console: Console, verbose: bool = False) -> None:
    """Print them with an empty line around every table and heading; `verbose` shows all paths of groups."""
    width = max(console.width, _NARROWEST)
    apart = False
    for index, block in enumerate(blocks):
        stands_alone = isinstance(block, Heading | Table | Details)
        if index and (apart or stands_alone):
            console.print()
        apart = isinstance(block, Table | Details)
        match block:
            case Heading(words):
                print_lines(console, wrap(plain(words), width), "bold")
            case Paragraph(words, tone, indent):
                print_lines(console, wrap(plain(words), width, indent), _STYLES[tone])
            case Notice(words):
                print_lines(console, wrap(plain(words), width), "yellow")
            case Table():
                _print_table(block, console, width)
                print_lines(console, wrap(block.note, width), "dim")
            case Groups(groups):
                for group in groups:
                    _print_all(console, _group(group, width, verbose))
            case Details(summary, inner):
                print_lines(console, wrap(plain(summary), width), "bold")
                print_blocks(inner, console, verbose)


def print_lines(console: Console, lines: Iterable[str], style: str = "") -> None:
    """Print lines as they are: no markup, no wrapping."""
    _print_all(console, (Text(line, style) for line in lines))


def elide(path: str, width: int) -> str:
    """`path` in at most `width` characters, the middle left out: `encoder.blo…conv2.depthwise`."""
    if len(path) <= width:
        return path
    tail = (width - 1) * 2 // 3
    return f"{path[: width - 1 - tail]}…{path[len(path) - tail :]}"


def shortened(content: str, width: int) -> str:
    """At most `width` columns of a text, the middle left out; what is two columns wide counts as such."""
    room = width
    while cell_len(shortened := elide(content, room)) > width:
        room -= 1
    return shortened


def wrap(content: str, width: int, indent: int = 0, hanging: int | None = None) -> list[str]:
    """Lines of at most `width`; the second and later ones are indented by `hanging` (by `indent` without it).

    No line ends between a number and its unit.
    """
    following = " " * (indent if hanging is None else hanging)
    lines = textwrap.wrap(
        re.sub(r"(?<=\d) (?=(?:[kMGT]|dB)\b|%)", _GLUE, content),
        width,
        initial_indent=" " * indent,
        subsequent_indent=following,
        break_on_hyphens=False,
    )
    return [line.replace(_GLUE, " ") for line in lines]


def grid() -> Grid:
    """A table without lines, whose columns are as wide as what is in them."""
    return Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")


def _print_all(console: Console, lines: Iterable[Text]) -> None:
    for line in lines:
        line.plain = printable(line.plain)  # a module's name may hold anything
        console.print(line, no_wrap=True, overflow="ignore", crop=False, highlight=False)


def _print_table(table: Table, console: Console, width: int) -> None:
    """Names are shortened to what the other columns leave; where that is too little, a row is a paragraph."""
    rows = [[printable(plain(cell)) for cell in row] for row in table.rows]
    columns = list(zip(table.header, *rows, strict=True))
    widths = [max(map(cell_len, column)) for column in columns]
    least = min(_LEAST_NAME, widths[table.name])
    room = width - sum(one + 2 for index, one in enumerate(widths) if index != table.name)
    if room < least and table.spare:
        _print_table(table.narrower(), console, width)
        return
    if room < least:
        for row in rows:
            _print_row(table.header[table.name :], row[table.name :], console, width)
        return
    found = grid()
    for header, side in zip(table.header, table.sides, strict=True):
        found.add_column(header, justify="right" if side == "r" else "left", no_wrap=True)
    for row in rows:
        found.add_row(*(Text(shortened(cell, room) if i == table.name else cell) for i, cell in enumerate(row)))
    console.print(found)


def _print_row(header: Sequence[str], row: Sequence[str], console: Console, width: int) -> None:
    print_lines(console, wrap(row[0], width, 0, 4), "cyan")
    cells = [(word, cell) for word, cell in zip(header[1:], row[1:], strict=True) if cell]
    for form in (cell for word, cell in cells if " → " in word):
        print_lines(console, _wrapped_parts(form, width, 4))
    rest = ", ".join(f"{word} {cell}".strip() for word, cell in cells if " → " not in word)
    print_lines(console, wrap(rest, width, 4), "dim")


def _group(group: Group, width: int, verbose: bool) -> Iterator[Text]:
    """One line where it fits: `   2 × changes the resolution: downs.0, downs.1`; else the layers below."""
    said = " ".join(plain(group.words).split())
    line = f"{len(group.paths):>4} × {said}: {', '.join(group.paths)}"
    if len(line) <= width and not verbose and not group.note:
        yield Text(line)
        return
    first, *rest = _wrapped_parts(said, width, 7)
    yield Text(f"{len(group.paths):>4} × {first[7:]}")
    yield from map(Text, rest)
    for path in group.paths if verbose else (_few(group.paths, width - 7),):
        yield from (Text(part, "cyan") for part in wrap(path, width, 7, 11))
    if group.note:
        yield from (Text(part, "dim") for part in wrap(group.note, width, 7))


def _wrapped_parts(said: str, width: int, indent: int) -> list[str]:
    """`before → after` on one line where it fits, else on a line each, broken before a plus sign if parts fit so."""
    if indent + len(said) <= width:
        return [f"{' ' * indent}{said}"]
    before, arrow, after = said.partition(" → ")
    if not arrow:
        return wrap(said, width, indent)
    return [*_before_plus(before, width, indent, indent), *_before_plus(f"→ {after}", width, indent, indent + 2)]


def _before_plus(content: str, width: int, indent: int, hanging: int) -> list[str]:
    parts = content.split(" + ")
    glued = " ".join(f"{f'+{_GLUE}' if index else ''}{part.replace(' ', _GLUE)}" for index, part in enumerate(parts))
    longest = max(map(len, parts)) + hanging + 2
    return wrap(glued if longest <= width else content, width, indent, hanging)


def _few(paths: Sequence[str], room: int) -> str:
    """As many paths as fit on one line, and how many more there are."""
    shown = [elide(paths[0], room - len(_more(len(paths) - 1)))]
    for path in paths[1:]:
        if len(", ".join([*shown, path])) + len(_more(len(paths) - len(shown) - 1)) > room:
            break
        shown.append(path)
    return ", ".join(shown) + _more(len(paths) - len(shown))


def _more(number: int) -> str:
    return f", … {number} more" if number else ""
