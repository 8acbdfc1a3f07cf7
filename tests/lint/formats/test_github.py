"""`github`: workflow commands as the runner reads them back, the limits, the job summary."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given

from mofa_compiler.lint.finding import Finding, Fix, Linted, Outcome, Position
from mofa_compiler.lint.formats import Context, render, renderer
from tests.lint.formats.samples import RULES, outcomes

github = renderer("github")
ROOT = Path("/nowhere")


def _read(line: str) -> tuple[str, dict[str, str], str]:
    """A command as the runner reads it: split first, then unescaped."""
    matched = re.fullmatch(r"::(\w+) ([^\n]*?)::([^\n]*)", line)
    assert matched, line
    properties = dict(part.split("=", 1) for part in matched[2].split(","))

    def plain(text: str) -> str:
        for escaped, character in (("%3A", ":"), ("%2C", ","), ("%0D", "\r"), ("%0A", "\n"), ("%25", "%")):
            text = text.replace(escaped, character)
        return text

    return matched[1], {key: plain(value) for key, value in properties.items()}, plain(matched[3])


def _many(number: int, level: str = "warning") -> Outcome:
    findings = tuple(
        Finding("MOFA201", "r", "m", f"l{index}", "s", f"x{index}", level, fix=Fix(("p",), True, 0, -index))  # type: ignore[arg-type]
        for index in range(number)
    )
    return Outcome([Linted("m", "t", findings, {})])


def test_an_annotation_names_file_lines_and_columns(outcome: Outcome, context: Context) -> None:
    commands = [_read(line) for line in github(outcome, context).splitlines()]
    assert [name for name, *_ in commands] == ["error", "error", "warning", "warning", "notice"]
    _, properties, message = commands[2]
    assert properties == {
        "file": "nets/nafnet.py",
        "line": "10",
        "endLine": "10",
        "col": "22",
        "endColumn": "73",
        "title": "MOFA201 separable-convolution",
    }
    assert "[nafnet: encoders.0.0.conv2, encoders.0.1.conv2, encoders.0.2.conv2 and 23 more]\n" in message
    assert message.endswith("MACs, +1.20 M parameters, 0.783 × the network's time on xnnpack 1.5.1")
    assert commands[3][1] == {  # GitHub takes no columns of several lines
        "file": "nets/nafnet.py",
        "line": "11",
        "endLine": "16",
        "title": "MOFA301 transposed-convolution",
    }
    assert commands[0][1]["file"] == "pyproject.toml"


def test_percent_signs_colons_and_commas_survive(context: Context) -> None:
    position = Position("a,b:c%0A.py", 1)
    finding = Finding("MOFA201", "x,y::z", "m", "l", "s", "50 %0A more::\r\n, surely", position=position)
    [line] = github(Outcome([Linted("m", "t", (finding,), {})]), context).splitlines()
    _, properties, message = _read(line)
    assert properties == {"file": "a,b:c%0A.py", "line": "1", "title": "MOFA201 x,y::z"}
    assert message == "50 %0A more::\\r\\n, surely [m: l]"


@given(outcome=outcomes())
def test_hostile_names_make_no_other_command(outcome: Outcome) -> None:
    lines = github(outcome, Context(RULES, ROOT)).splitlines()
    commands = [_read(line) for line in lines]
    assert {name for name, *_ in commands} <= {"error", "warning", "notice"}
    assert {key for _, properties, _ in commands for key in properties} <= {
        *("file", "line", "endLine", "col", "endColumn", "title")
    }
    assert len(lines) <= len(outcome.findings) + 1


@pytest.mark.parametrize("level", ["error", "warning", "note"])
def test_ten_of_a_level_are_all_shown(level: str, context: Context) -> None:
    text = github(_many(10, level), context)
    assert len(text.splitlines()) == 10 and "mofa lint" not in text


@pytest.mark.parametrize(("level", "shown"), [("error", 10), ("warning", 10), ("note", 9)])
def test_what_is_beyond_the_limit_is_counted_and_the_largest_savings_are_shown(
    level: str, shown: int, context: Context
) -> None:
    lines = github(_many(26, level), context).splitlines()
    names = [_read(line)[0] for line in lines]
    assert max(names.count(name) for name in names) <= 10
    assert [_read(line)[2].split()[0] for line in lines[:-1]] == [f"x{index}" for index in range(25, 25 - shown, -1)]
    assert _read(lines[-1])[2] == (f"{26 - shown} findings of 26 are not shown here: `--output-format full` shows them")


def test_the_rest_is_in_the_job_summary(context: Context, tmp_path: Path) -> None:
    file = tmp_path / "summary.md"
    file.write_text("# before\n", encoding="utf-8")
    text = render("github", _many(26), RULES, context.root, environ={"GITHUB_STEP_SUMMARY": str(file)})
    assert text.endswith("16 findings of 26 are not shown here: they are in the job summary\n")
    summary = file.read_text(encoding="utf-8")
    assert summary.startswith("# before\n### mofa lint: 26 findings")
    assert all(f"x{index}: `l{index}`" in summary for index in range(26))


@pytest.mark.parametrize("taken", [0, 2**20 - 2000, 2**20 - 10])
@pytest.mark.sample(1)
def test_the_job_summary_stays_below_its_limit(taken: int, context: Context, tmp_path: Path) -> None:
    file = tmp_path / "summary.md"
    file.write_bytes(b"x" * taken)
    text = github(_many(10_000), replace(context, summary=file))
    assert taken < file.stat().st_size <= 2**20 or (taken == 2**20 - 10 and file.stat().st_size == taken)
    assert ("job summary" in text) == (file.stat().st_size > taken)


def test_a_summary_that_cannot_be_written_costs_no_annotation(context: Context, tmp_path: Path) -> None:
    text = github(_many(3), replace(context, summary=tmp_path / "no folder" / "summary.md"))
    assert len(text.splitlines()) == 3
