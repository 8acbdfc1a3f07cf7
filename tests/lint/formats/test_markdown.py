"""`markdown`, parsed as GitHub would: tables that keep their columns, and nothing that a name can smuggle in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from mofa_compiler.lint.finding import Finding, Fix, Linted, Outcome, Position
from mofa_compiler.lint.formats import Context, renderer
from mofa_compiler.lint.formats.markdown import code, escape, fitting
from tests.lint.formats.samples import RULES, hostile, outcomes

markdown = renderer("markdown")
PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
HARMLESS = {"<br>", "<code>", "</code>"}


def _tokens(text: str) -> Iterator[Token]:
    for token in PARSER.parse(text):
        yield token
        yield from token.children or ()


def _visible(text: str) -> str:
    return "".join(token.content for token in _tokens(text) if token.type in ("text", "code_inline"))


def _rows(text: str) -> list[int]:
    """Cells of every row of every table."""
    rows: list[int] = []
    for token in _tokens(text):
        if token.type == "tr_open":
            rows.append(0)
        elif token.type in ("th_open", "td_open"):
            rows[-1] += 1
    return rows


def _many(number: int, models: int = 1) -> Outcome:
    findings = tuple(
        Finding("MOFA201", "r", "m", f"layer{index}", "s", f"x{index}", fix=Fix(("p",), False, 1, -index))
        for index in range(number)
    )
    return Outcome([Linted("m", "t", findings, {})] * models)


def test_rows_are_groups_and_the_most_important_one_is_first(outcome: Outcome, context: Context) -> None:
    text = markdown(outcome, context)
    lines = text.splitlines()
    assert lines[0].startswith("### mofa lint: 30 findings in 3 models: 26 MOFA201, 1 MOFA301")
    assert lines[6] == "| model | rule | where | finding | fix | Δ MACs | Δ parameters |"
    assert [line.split(" | ")[1] for line in lines[8:13]] == [
        "**error** `MOFA501` parameters",
        "**error** `MOFA901` untraceable",
        "`MOFA201` separable-convolution",
        "`MOFA301` transposed-convolution",
        "**note** `MOFA402` custom-layer-norm",
    ]
    assert lines[10].endswith(
        "`encoders.0.2.conv2` and 23 more | `sepconv-to-pconv`, then `widen-portion` (approximate), 0.783 × the "
        "network's time on xnnpack 1.5.1 | −1.09 G | +1.20 M |"
    )
    assert "<details><summary>MOFA201 at nets/nafnet.py:10:22: 26 layers</summary>\n\n`encoders.0.0.conv2`, " in text
    assert lines[-1] == (
        "2 fixable with --fix (exact); 26 more with --fix --unsafe-fixes (approximate); 3 left out (2 by comment, "
        "1 by baseline)."
    )
    assert _rows(text) == [7] * 6


def test_one_model_takes_no_column_and_a_clean_one_no_table(context: Context) -> None:
    assert _rows(markdown(_many(2), context)) == [6] * 3
    assert markdown(Outcome([Linted("m", "a.py:M", (), {})]), context) == (
        "### mofa lint: No findings in 1 model\n\n- m (a.py:M)\n"
    )


def test_rows_after_the_first_fifteen_are_folded(context: Context) -> None:
    text = markdown(_many(20), context)
    opened, folded = text.split("<details><summary>5 more rows</summary>\n\n")
    assert opened.count("`layer") == 15 and folded.count("`layer") == 5
    assert "<details>" not in markdown(_many(15), context)


def test_of_many_kinds_the_first_are_said(context: Context) -> None:
    findings = tuple(
        Finding("MOFA201", "r", "m", f"layer{index}", "s", f"{index} channels", position=Position("net.py", 1))
        for index in range(9)
    )
    text = markdown(Outcome([Linted("m", "t", findings, {})]), context)
    assert "| 0 channels: `layer0`<br>1 channels: `layer1`<br>" in text
    assert "3 channels: `layer3`<br>5 findings of 5 more kinds |" in text
    [annotation] = renderer("github")(Outcome([Linted("m", "t", findings, {})]), context).splitlines()
    assert annotation.endswith(
        "::0 channels [m: layer0]%0A1 channels [m: layer1]%0A2 channels [m: layer2]%0A"
        "3 channels [m: layer3]%0A5 findings of 5 more kinds"
    )


def test_what_a_comment_cannot_hold_is_left_out_from_the_end(context: Context) -> None:
    text = markdown(_many(5000), context)
    assert 60_000 < len(text.encode()) <= 65_000
    shown = text.count("`layer")
    assert f"{5000 - shown} less important findings left out for length." in text
    assert "`layer4999`" in text and "`layer0`" not in text
    assert fitting(_many(5), context, 10) == ""


@given(outcome=outcomes())
def test_hostile_names_break_no_table_and_bring_no_markup(outcome: Outcome) -> None:
    text = markdown(outcome, Context(RULES, Path("/nowhere")))
    assert len(set(_rows(text))) <= 1
    kinds = {token.type for token in _tokens(text)}
    assert not kinds & {"link_open", "image", "em_open", "s_open", "fence", "hr", "blockquote_open"}
    inline = {token.content for token in _tokens(text) if token.type == "html_inline"}
    assert inline <= HARMLESS
    blocks = "".join(token.content for token in _tokens(text) if token.type == "html_block")
    assert blocks.count("<") == blocks.count("<details>") + blocks.count("</details>") + blocks.count(
        "<summary>"
    ) + blocks.count("</summary>")


@given(text=hostile | st.text("`|\\<&@#*_[](a ", max_size=12))
def test_a_name_is_shown_as_it_is(text: str) -> None:
    from mofa_compiler.base.spelling import printable

    expected = " ".join(printable(text).split())
    for shown in (escape(text), code(text)):
        row = f"|a|\n|-|\n|x{shown}x|"
        assert _rows(row) == [1, 1]
        visible = _visible(row)[2:-1].replace("\u200b", "")
        assert " ".join(visible.split()) == expected
