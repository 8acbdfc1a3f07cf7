"""The lines of source that a finding points at, underlined."""

from __future__ import annotations

import stat
import tokenize
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from rich.cells import cell_len
from rich.text import Text

from ...base.spelling import printable
from ..finding import Position

_TAB = 4
_LINES_SHOWN = 4
_CONTEXT = 8  # columns before what is underlined, where a line is too long
_LARGEST = 4 * 2**20


def snippet(position: Position, root: Path, width: int) -> tuple[int, list[Text]]:
    """The width of the numbers' column, and the lines with their numbers, the first with carets below.

    Lines that are too long are cut around what is underlined. Nothing comes of a file that cannot be read, or that
    has fewer lines by now.
    """
    lines = _read(root / position.file)
    if not 1 <= position.line <= len(lines):
        return len(str(position.line)), []
    last = min(max(position.end_line or position.line, position.line), len(lines))
    shown = range(position.line, min(last, position.line + _LINES_SHOWN - 1) + 1)
    gutter = len(str(shown[-1]))
    rendered = [Text(f"{'':{gutter}} |", "blue")]
    for number in shown:
        underlined = _columns(position, last, lines[number - 1]) if number == position.line else None
        rendered += _line(lines[number - 1], f"{number:{gutter}} |", underlined, width)
    if last > shown[-1]:
        rendered.append(Text(f"{'':{gutter}} | …", "blue"))
    return gutter, rendered


def _columns(position: Position, last: int, line: str) -> tuple[int, int]:
    """What to underline of the first line, as a slice; all but the margins where no column is known."""
    margin, length = len(line) - len(line.lstrip()), len(line.rstrip())
    start = position.column - 1 if position.column else margin
    end = position.end_column - 1 if last == position.line and position.end_column else length
    return (start, min(end, length)) if start < min(end, length) else (margin, length)


def _line(line: str, prefix: str, underlined: tuple[int, int] | None, width: int) -> Iterator[Text]:
    """The line, cut to the width, and its underline."""
    cells = [_shown(character) for character in line.rstrip()]
    start, end = underlined or (0, 0)
    room = max(width - len(prefix) - 1, 20)
    if sum(map(cell_len, cells)) > room:
        if (skipped := start - _CONTEXT) > 0:
            cells[:skipped] = ["…"]
            start, end = start - skipped + 1, end - skipped + 1
        if sum(map(cell_len, cells)) > room:
            while sum(map(cell_len, cells)) > room - 1:
                cells.pop()
            cells.append("…")
    yield Text(prefix, "blue").append(f" {''.join(cells)}", "default")
    if underlined:
        before, marked = cell_len("".join(cells[:start])), cell_len("".join(cells[start:end]))
        yield Text(f"{'':{len(prefix) - 1}}|", "blue").append(f" {'':{before}}{'^' * marked}", "bold red")


def _shown(character: str) -> str:
    return " " * _TAB if character == "\t" else printable(character)


def _read(file: Path) -> tuple[str, ...]:
    """The lines in the encoding that the file declares; none of what is no readable source."""
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST:
            return ()
        return _lines(file, status.st_mtime_ns, status.st_size)
    except (OSError, SyntaxError, ValueError):  # ValueError: undecodable, or a null character in the name
        return ()


@lru_cache(maxsize=64)
def _lines(file: Path, modified: int, size: int) -> tuple[str, ...]:
    """Read once for all findings in a file, as long as it stays what it is."""
    with tokenize.open(file) as source:
        return tuple(source.read().split("\n"))
