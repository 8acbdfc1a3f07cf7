"""The comparison at a terminal; readable at 80 columns and below."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from ...base import spelling
from ..drawing import shortened
from ..terminal import elide, print_lines, wrap
from . import tables
from .data import Comparison, Difference
from .tables import Group, Table

_NARROWEST = 40
_GROUPS = 12


def print_comparison(data: Comparison, console: Console, verbose: bool = False) -> None:
    """Print what `compare` returned; `verbose` shows every layer that differs."""
    width = max(console.width, _NARROWEST)
    print_lines(console, wrap(tables.heading(data), width), "bold")
    console.print()
    _print_table(console, tables.sizes(data), width)
    console.print()
    print_lines(console, wrap(tables.quality(data), width), "dim")
    if data.notes:
        console.print()
    for note in data.notes:
        print_lines(console, wrap(note, width), "yellow")
    for table in tables.times(data):
        console.print()
        print_lines(console, wrap(table.title, width), "bold")
        _print_table(console, table, width)
    if sentence := tables.timing(data):
        console.print()
        print_lines(console, wrap(sentence, width), "dim")
    for difference in data.differences:
        console.print()
        print_lines(console, wrap(tables.counts(difference), width), "bold")
        if not difference.same and not difference.different and not verbose:
            print_lines(console, wrap("No path is in both: --verbose lists all layers.", width, 4), "dim")
            continue
        found = tables.groups(difference)
        shown, more = (found, 0) if verbose else (found[:_GROUPS], len(found[_GROUPS:]))
        for group in shown:
            print_lines(console, _form(group, difference, width))
            print_lines(console, _paths(group, width, verbose), "cyan")
        if more:
            print_lines(console, wrap(f"and {more} more forms: --verbose shows all", width, 4), "dim")


def _print_table(console: Console, table: Table, width: int) -> None:
    """Names are shortened to what the numbers leave; where that is too little, each column gets lines of its own."""
    columns = list(zip(table.header, *table.rows, strict=True))
    numbers = sum(max(map(len, column)) + 2 for column in columns[1:])
    room = width - numbers
    if room < 10:
        _print_narrow(console, table, width)
        return
    grid = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for index, header in enumerate(table.header):
        grid.add_column(header, justify="right" if index else "left", no_wrap=True)
    for name, *cells in table.rows:
        grid.add_row(Text(shortened(spelling.printable(name), room)), *map(Text, cells))
    console.print(grid)


def _print_narrow(console: Console, table: Table, width: int) -> None:
    for name, *cells in table.rows:
        print_lines(console, wrap(name, width), "bold")
        named = (f"{header}: {cell}" if header else cell for header, cell in zip(table.header[1:], cells, strict=True))
        for line, cell in zip(named, cells, strict=True):
            if cell:
                print_lines(console, wrap(line, width, 2, 4))


def _form(group: Group, difference: Difference, width: int) -> Iterable[str]:
    """`3 × Conv2d(…) → PConv2d(…)`, or which of the two has it."""
    if group.before and group.after:
        form = f"{group.before} → {group.after}"
    else:
        form = f"{group.before or group.after}, only in {difference.first if group.before else difference.other}"
    lines = wrap(" ".join(form.split()), width, 7)
    return [f"{len(group.paths):>4} × {lines[0][7:]}", *lines[1:]]


def _paths(group: Group, width: int, verbose: bool) -> Iterable[str]:
    if verbose:
        return [line for path in group.paths for line in wrap(path, width, 7, 11)]
    room = width - 7
    shown = [elide(group.paths[0], room - 12)]
    for path in group.paths[1:]:
        if len(", ".join([*shown, path])) > room - 12:
            break
        shown.append(path)
    left = len(group.paths) - len(shown)
    return [" " * 7 + ", ".join(shown) + (f", … {left} more" if left else "")]
