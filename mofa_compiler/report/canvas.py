"""A page of characters with boxes and lines on it, in box characters or in ASCII."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from itertools import pairwise

from rich.cells import cell_len

from ..base.spelling import printable

Cell = tuple[int, int]
Ends = tuple[str, str]

_UP, _RIGHT, _DOWN, _LEFT = 1, 2, 4, 8
_VERTICAL, _HORIZONTAL = _UP | _DOWN, _LEFT | _RIGHT
_LINES = " │─└││┌├─┘─┴┐┤┬┼"  # by the sum of the directions that meet in a cell
_ASCII = " |-+||++-+-+++++"
_ARROWS = {_UP: "▲", _RIGHT: "▶", _DOWN: "▼", _LEFT: "◀"}
_PLAIN = str.maketrans("▲▶▼◀…×→−", "^>v<~x>-")


class Canvas:
    """Cells by (row, column) from 0; what is drawn first is in the way of what comes later."""

    def __init__(self) -> None:
        self._lines: dict[Cell, int] = {}
        self._characters: dict[Cell, str] = {}
        self._solid: set[Cell] = set()
        self._owners: dict[Cell, set[Ends]] = {}
        self.labels: list[tuple[Cell, str]] = []

    def write(self, row: int, column: int, text: str) -> None:
        """Put text on one row; a character that is two columns wide takes two cells."""
        for character in printable(text):
            width = cell_len(character)
            if width:
                self._characters[row, column] = character
                self._characters |= {(row, column + i): "" for i in range(1, width)}
                self._solid |= {(row, column + i) for i in range(width)}
                column += width

    def box(self, row: int, column: int, width: int, title: str, lines: Sequence[str], tag: str = "") -> None:
        """Draw a box with a title in its upper border and a tag in its lower one; all texts have to fit."""
        bottom, right = row + len(lines) + 1, column + width - 1
        corners = [(row, column), (row, right), (bottom, right), (bottom, column), (row, column)]
        self._draw(list(_cells(corners)))
        self._solid |= {(y, x) for y in range(row, bottom + 1) for x in range(column, right + 1)}
        self.write(row, column + 1, f" {title} ")
        for offset, line in enumerate(lines, 1):
            self.write(row + offset, column + 2, line)
        if tag:
            self.write(bottom, column + 1, f" {tag} ")

    def connect(self, corners: Sequence[Cell], ends: Ends) -> bool:
        """Draw an arrow along `corners`, the first of which is a cell of a box's border; False where something is
        in the way, with nothing drawn.

        Lines cross each other at right angles; those that share an end (`ends`) may run together.
        """
        cells = list(_cells(corners))
        if len(cells) < 2:
            return False
        if not all(self._may_enter(cells, index, ends) for index in range(1, len(cells))):
            return False
        self._draw(cells)
        self._characters[cells[-1]] = _ARROWS[_direction(cells[-2], cells[-1])]
        for cell in cells[1:]:
            self._owners.setdefault(cell, set()).add(ends)
        return True

    def label(self, corners: Sequence[Cell], text: str, ends: Set[Ends]) -> set[Ends]:
        """Write text on the longest row of a line, after all lines are drawn; returns the lines that it stands on.

        It stands where it fits between crossings and only lines of these ends run, or nowhere.
        """
        width = cell_len(text)
        rows: dict[int, list[int]] = {}
        for row, column in _cells(corners):
            rows.setdefault(row, []).append(column)
        row, columns = max(rows.items(), key=lambda item: len(item[1]))
        first, last = min(columns) + 1, max(columns) - 1 - width
        for column in sorted(range(first, last + 1), key=lambda x: abs(2 * x - first - last)):
            span = [(row, x) for x in range(column, column + width)]
            owners = {owner for cell in span for owner in self._owners.get(cell, ())}
            free = all(self._lines.get(cell) == _HORIZONTAL and cell not in self._characters for cell in span)
            if free and owners <= ends:
                self.write(row, column, text)
                self.labels.append(((row, column), text))
                return owners
        return set()

    def render(self, *, ascii_only: bool = False) -> list[str]:
        """The page as lines without trailing spaces."""
        cells = self._lines.keys() | self._characters.keys()
        lines = _ASCII if ascii_only else _LINES
        page = []
        for row in range(max((row for row, _ in cells), default=-1) + 1):
            width = max((column + 1 for y, column in cells if y == row), default=0)
            drawn = "".join(self._characters.get((row, x), lines[self._lines.get((row, x), 0)]) for x in range(width))
            page.append(to_ascii(drawn.rstrip()) if ascii_only else drawn.rstrip())
        return page

    def _may_enter(self, cells: Sequence[Cell], index: int, ends: Ends) -> bool:
        """Whether a line along `cells` may go through one of them."""
        cell = cells[index]
        heading = _direction(cells[index - 1], cell)
        is_last = index == len(cells) - 1
        owners = self._owners.get(cell, ())
        if cell in self._solid or min(cell) < 0:
            return False
        if cell in self._characters:  # the point of another arrow
            return is_last and all(other[1] == ends[1] for other in owners)
        if all(other[0] == ends[0] or other[1] == ends[1] for other in owners):
            return True
        across = _VERTICAL if heading & _HORIZONTAL else _HORIZONTAL
        return not is_last and heading == _direction(cell, cells[index + 1]) and self._lines[cell] == across

    def _draw(self, cells: Sequence[Cell]) -> None:
        for before, after in pairwise(cells):
            self._lines[before] = self._lines.get(before, 0) | _direction(before, after)
            self._lines[after] = self._lines.get(after, 0) | _direction(after, before)


def to_ascii(line: str) -> str:
    """A line in ASCII, as wide as before: the signs of our own in a likeness, others as question marks."""
    return "".join(c if c.isascii() else "?" * cell_len(c) for c in line.translate(_PLAIN))


def _cells(corners: Sequence[Cell]) -> Iterator[Cell]:
    """All cells from corner to corner, along rows and columns."""
    yield corners[0]
    for (row, column), (to_row, to_column) in pairwise(corners):
        down, right = _sign(to_row - row), _sign(to_column - column)
        while (row, column) != (to_row, to_column):
            row, column = row + down, column + right
            yield row, column


def _direction(cell: Cell, neighbour: Cell) -> int:
    down, right = neighbour[0] - cell[0], neighbour[1] - cell[1]
    return _DOWN if down > 0 else _UP if down < 0 else _RIGHT if right > 0 else _LEFT


def _sign(number: int) -> int:
    return (number > 0) - (number < 0)
