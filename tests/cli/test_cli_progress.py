"""Progress on stderr: bars with the time left on a terminal, lines elsewhere, nothing where it is not wanted."""

from __future__ import annotations

import io
import re

import pytest
from rich.progress import TimeRemainingColumn

from mofa_compiler.base.progress import Step
from mofa_compiler.cli import options
from mofa_compiler.cli.options import progress_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def work(quiet: bool = False) -> None:
    with progress_bar(quiet) as phase:
        tell = phase("rewriting")
        for done in range(4):
            tell(f"layer [bold]{done}", done, 4)
        tell("of another kind", 0, 2)


def test_a_terminal_shows_a_bar_with_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr(TimeRemainingColumn, "max_refresh", None)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    work()
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue())
    assert "rewriting: of another kind" in plain and "0/2" in plain
    assert re.search(r"\d:\d\d:\d\d +(-:--|--:--|\d+:\d\d)", plain), "time gone and time left"


def test_the_time_that_is_told_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    with progress_bar() as phase:
        phase("rewriting")(Step("pricing", 125.0, 0.25), 3, 40)
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue())
    assert "rewriting: pricing" in plain and "25 %" in plain and "2:05" in plain
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr(options, "LINE_EVERY", 0.0)
    with progress_bar() as phase:
        phase("rewriting")(Step("pricing", 33.4, 0.25), 3, 40)
    assert stream.getvalue() == "rewriting: pricing (3 of 40, 0:33 left)\n"


@pytest.mark.parametrize("columns", ["20", "40"])
def test_a_narrow_terminal_gets_one_line(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("COLUMNS", columns)
    work()
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue())
    assert max(len(line) for line in re.split(r"[\r\n]", plain)) <= int(columns)


def test_elsewhere_only_what_takes_long_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    work()
    assert stream.getvalue() == ""
    monkeypatch.setattr(options, "LINE_EVERY", 0.0)
    work()
    assert stream.getvalue().splitlines()[-1] == "rewriting: of another kind (0 of 2)"


def test_quiet_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream in (Terminal(), io.StringIO()):
        monkeypatch.setattr("sys.stderr", stream)
        monkeypatch.setattr(options, "LINE_EVERY", 0.0)
        work(quiet=True)
        assert stream.getvalue() == ""
