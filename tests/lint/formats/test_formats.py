"""What holds of every format: any text in names and messages, any encoding of stdout, the choice by name."""

from __future__ import annotations

import io
import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given

from mofa_compiler.lint.finding import Finding, Fix, Linted, Outcome
from mofa_compiler.lint.formats import FORMATS, Context, emit, render, renderer
from mofa_compiler.lint.formats.wording import headline, remarks
from tests.lint.formats.samples import RULES, outcomes

ROOT = Path("/nowhere/at all")


@pytest.mark.parametrize("name", FORMATS)
@given(outcome=outcomes())
def test_nothing_in_a_name_can_move_the_cursor_or_break_the_encoding(name: str, outcome: Outcome) -> None:
    text = renderer(name)(outcome, Context(RULES, ROOT, ROOT / "mofa.toml"))
    allowed = {"\n", "\u200b"} if name in ("markdown", "github") else {"\n"}
    assert {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")} <= allowed
    assert text == "" or text.endswith("\n")
    text.encode()


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_every_format_can_be_written_to_any_stdout(
    name: str, encoding: str, outcome: Outcome, context: Context
) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="")
    text = renderer(name)(outcome, context)
    emit(text, stream)
    written = stream.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
    if encoding == "utf-8" or name in ("json", "json-lines", "gitlab", "junit", "sarif"):
        assert written == text
    assert written.count("\n") == text.count("\n")


def test_signs_are_still_read_where_the_encoding_lacks_them() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    emit("−32.4 M MACs, 0.78 × the time, Δ MACs, é\n", stream)
    assert stream.buffer.getvalue() == b"-32.4 M MACs, 0.78 x the time, change in MACs, \\xe9\n"  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", FORMATS)
def test_a_run_without_models_is_rendered(name: str, root: Path) -> None:
    text = renderer(name)(Outcome([]), Context(RULES, root))
    assert text == "" or text.endswith("\n")


@given(outcome=outcomes())
def test_json_holds_everything_as_it_is(outcome: Outcome) -> None:
    data = json.loads(renderer("json")(outcome, Context(RULES, ROOT)))
    assert [model["model"] for model in data["models"]] == [linted.model for linted in outcome.models]
    found = [finding for model in data["models"] for finding in model["findings"]]
    assert [finding["path"] for finding in found] == [finding.path for finding in outcome.findings]
    lines = renderer("json-lines")(outcome, Context(RULES, ROOT)).splitlines()
    assert [json.loads(line) for line in lines] == found


def test_what_is_not_finite_is_null_in_json() -> None:
    finding = Finding("MOFA201", "r", "m", "a", "s", "x", fix=Fix(("p",), True, ratio=float("nan")))
    data = json.loads(renderer("json-lines")(Outcome([Linted("m", "t", (finding,), {})]), Context(RULES, ROOT)))
    assert data["fix"]["ratio"] is None


def test_the_terminal_decides_about_width_and_colour(outcome: Outcome, root: Path) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def shown(stream: io.StringIO | None, **environ: str) -> str:
        return render("full", outcome, RULES, root, stream=stream, environ={"TERM": "xterm", **environ})

    assert "\x1b[1;31m" in shown(Terminal(), COLUMNS="80")
    assert "\x1b[1;31m" not in shown(Terminal(), COLUMNS="80", NO_COLOR="1")
    assert "\x1b" not in shown(io.StringIO())
    assert "\x1b" not in shown(None)
    assert max(map(len, shown(io.StringIO(), COLUMNS="60").splitlines())) <= 60


def test_no_name_is_given_twice_and_an_unknown_one_is_an_error(outcome: Outcome, root: Path) -> None:
    assert list(FORMATS) == ["full", "concise", "json", "json-lines", "github", "gitlab", "junit", "sarif", "markdown"]
    with pytest.raises(KeyError):
        render("yaml", outcome, RULES, root)


def test_a_run_in_a_sentence(outcome: Outcome) -> None:
    assert summary(outcome) == (
        "30 findings in 3 models: 26 MOFA201, 1 MOFA301, 1 MOFA402, 1 MOFA501, 1 MOFA901; 2 fixable with --fix "
        "(exact); 26 more with --fix --unsafe-fixes (approximate); 3 left out (2 by comment, 1 by baseline)"
    )
    assert summary(Outcome([Linted("a", "a:A", (), {})])) == "No findings in 1 model"


def test_what_was_fixed_is_counted() -> None:
    left = Finding("MOFA201", "r", "m", "b", "s", "x", fix=Fix(("p",), True))
    outcome = Outcome([Linted("m", "t", (left,), {}, fixed=(left,))])
    assert summary(outcome) == "1 finding in 1 model: 1 MOFA201; 1 fixed; 1 fixable with --fix (exact)"


def summary(outcome: Outcome) -> str:
    return "; ".join([headline(outcome), *remarks(outcome)])
