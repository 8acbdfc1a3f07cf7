"""The executor runs what a page shows, and fails where the page is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import executor
from .executor import Page

FENCE = "```"


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, *blocks: tuple[str, str]) -> Page:
    monkeypatch.setattr(executor, "ROOT", folder)
    monkeypatch.setattr(executor, "UPDATE", False)
    text = "\n\n".join(f"Words.\n\n{FENCE}{info}\n{source}\n{FENCE}" for info, source in blocks)
    (folder / "page.md").write_text(text, encoding="utf-8")
    page = Page(folder / "page.md", folder)
    assert page.run() == len(blocks)
    return page


def test_blocks_share_names_files_variables_and_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(
        tmp_path,
        monkeypatch,
        ('python title="sub/helper.py"', "VALUE = 7"),
        ("python", "from sub.helper import VALUE\nname = 'x'"),
        ("python", "print(name, VALUE)"),
        ("text", "x 7"),
        ("sh", "# a comment\nwhere=sub  # another\ncd $where"),
        ("console", "$ ls \\\n  *.py\nhelper.py\n$ echo 3.5 ms; echo more; echo last\n9.87 ms\n…\nlast"),
        ("console", "$ echo '1.2 %,  30.1 dB, 2e-16, 3 of 4'\n1.3 %, 30.9 dB, 1.5e-15, 3 of 4"),
        ("console", "$ false  # exit code 1\n$ echo a b c >&2\na … c"),
    )


@pytest.mark.parametrize(
    ("info", "source", "message"),
    [
        ("", "anything", "no language that is executed"),
        ("ruby", "puts 1", "'ruby' is no language"),
        ("python", "1 / 0", "division by zero"),
        ("python", "def test_it():\n    assert 1 == 2", "assert 1 == 2"),
        ("sh", "true\nfalse", "ends with 1"),
        ("sh", "false | true", "ends with 1"),
        ("sh", "true  # exit code 1", "ends with 0"),
        ("console", "$ echo one\ntwo", "printed:\none"),
        ("console", "$ echo one; echo two\none", "printed:\none\ntwo"),
        ("console", "$ echo one", "printed:\none"),
        ("console", "$ echo off by 3.0 %\noff by 1.1 %", "printed:\noff by 3.0 %"),
        ("console", "$ echo 36.0 dB\n39.0 dB", "printed:\n36.0 dB"),
        ("console", "$ echo 1e-3 of 5\n0 of 5", "printed:\n1e-3"),
        ("console", "echo one", "begins with"),
        ("text", "never printed", "nothing printed so far"),
        ("toml", "x = 1", "what reads this"),
        ("toml", '[[pass]]\nname = "no-such-pass"', "ends with 1"),
        ("toml", "[[tool.mofa.models]]\ntarget = 3", "ends with 1"),
        ("yaml", "x: 1", "what reads this"),
        ("yaml", "jobs: {a: {steps: [{run: 'false'}]}}", "ends with 1"),
        ("yaml", "jobs: {a: {steps: [{uses: actions/unheard-of@v1}]}}", "actions/unheard-of"),
    ],
)
@pytest.mark.sample(10)
def test_a_wrong_block_fails(
    info: str, source: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Exception, match=message):
        run(tmp_path, monkeypatch, (info, source))


def test_what_is_printed_is_written_into_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"A\n\n{FENCE}console\n$ echo one\nold\n$ echo two\n{FENCE}\n\nB\n")
    monkeypatch.setattr(executor, "ROOT", tmp_path)
    monkeypatch.setattr(executor, "UPDATE", True)
    Page(page, tmp_path).run()
    assert page.read_text() == f"A\n\n{FENCE}console\n$ echo one\none\n$ echo two\ntwo\n{FENCE}\n\nB\n"
