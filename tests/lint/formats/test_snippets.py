"""Lines of source with carets below: long ones, tabs, wide characters, columns that no longer fit."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.cells import cell_len

from mofa_compiler.lint.finding import Position
from mofa_compiler.lint.formats.source import snippet


def _shown(root: Path, source: str, position: Position, width: int = 80) -> list[str]:
    (root / position.file).write_text(source, encoding="utf-8")
    return [line.plain for line in snippet(position, root, width)[1]]


def test_tabs_and_wide_characters_keep_the_carets_below(tmp_path: Path) -> None:
    source = "\tx = 畳(c)  # \x1b[31m\n"
    lines = _shown(tmp_path, source, Position("a.py", 1, 1, 6, 10))
    assert lines == ["  |", "1 |     x = 畳(c)  # \\x1b[31m", "  |         ^^^^^"]


def test_a_long_line_is_cut_around_what_is_underlined(tmp_path: Path) -> None:
    source = "x = [" + ", ".join(f"make({index})" for index in range(100)) + "]\n"
    column = source.index("make(57)") + 1
    lines = _shown(tmp_path, source, Position("b.py", 1, 1, column, column + 8), 50)
    assert all(cell_len(line) <= 50 for line in lines)
    code, carets = lines[1], lines[2]
    assert code[carets.index("^") : carets.rindex("^") + 1] == "make(57)"
    assert code.startswith("1 | …") and code.endswith("…")


@pytest.mark.parametrize(
    ("position", "underlined"),
    [
        (Position("c.py", 1), "conv = 1"),
        (Position("c.py", 1, 1, 500, 600), "conv = 1"),
        (Position("c.py", 1, 1, 8, 3), "conv = 1"),
        (Position("c.py", 1, 3, 10, 2), "1"),
        (Position("c.py", 1, None, 3, None), "conv = 1"),
        (Position("c.py", 1, 0, 3, 7), "conv"),
    ],
)
def test_columns_that_do_not_fit_the_line_underline_all_of_it(
    position: Position, underlined: str, tmp_path: Path
) -> None:
    lines = _shown(tmp_path, "  conv = 1  \nb\n", position)
    start = lines[2].index("^")
    assert lines[1][start : start + lines[2].count("^")] == underlined


@pytest.mark.parametrize("line", [3, 10**6])
def test_a_line_that_the_file_no_longer_has_shows_nothing(line: int, tmp_path: Path) -> None:
    assert _shown(tmp_path, "a\nb", Position("d.py", line)) == []
