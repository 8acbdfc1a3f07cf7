"""Two versions of models compared: the data, Markdown and a terminal."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.cells import cell_len
from rich.console import Console

from mofa_compiler.base.spelling import printable
from mofa_compiler.lint.comparison import compare, markdown, print_comparison
from mofa_compiler.lint.finding import Finding, Fix, Linted


def finding(path: str, code: str = "MOFA201", message: str = "a separable convolution", **rest) -> Finding:
    return Finding(code, "a-rule", "net", path, "Conv2d(8, k3)", message, **rest)


BEFORE = Linted(
    "net",
    "net.py:Net",
    (finding("blocks.0"), finding("blocks.1"), finding("head", "MOFA302")),
    {},
    parameters=1_000_000,
    macs=2_000_000_000,
    stages={"encoder 1": 1_500_000_000, "middle": 500_000_000},
    inputs="1x3x256x256",
)
AFTER = replace(
    BEFORE,
    findings=(
        finding("blocks.1"),
        finding("blocks.2"),
        finding("blocks.3", fix=Fix(("sepconv-to-pconv",), exact=False, macs=-5_000)),
        finding("", "MOFA502", "2.40 G MACs are more than the budget of 2 G", level="error"),
    ),
    parameters=1_500_000,
    macs=2_400_000_000,
    stages={"encoder 1": 1_800_000_000, "decoder 1": 600_000_000},
)


def terminal(comparison, width: int = 80) -> str:
    stream = io.StringIO()
    print_comparison(comparison, Console(file=stream, width=width, highlight=False, markup=False, emoji=False))
    return stream.getvalue()


def test_data():
    data = compare(BEFORE, AFTER)
    assert data["schema"] == "mofa-lint-diff/1"
    (model,) = data["models"]
    assert model["model"] == "net"
    assert model["before"] == {
        "target": "net.py:Net",
        "inputs": "1x3x256x256",
        "parameters": 1_000_000,
        "macs": 2_000_000_000,
    }
    assert model["after"]["macs"] == 2_400_000_000
    # blocks.1 is the same, blocks.2 is what blocks.0 was, and blocks.3 is one more of its kind
    assert [(f["code"], f["path"]) for f in model["new"]] == [("MOFA201", "blocks.3"), ("MOFA502", "")]
    assert model["new"][0] == AFTER.findings[2].to_data()
    assert [(f["code"], f["path"]) for f in model["gone"]] == [("MOFA302", "head")]
    assert model["unchanged"] == 2
    assert model["stages"] == [
        {
            "name": "encoder 1",
            "before": {"macs": 1_500_000_000, "share": 0.75},
            "after": {"macs": 1_800_000_000, "share": 0.75},
        },
        {"name": "decoder 1", "before": None, "after": {"macs": 600_000_000, "share": 0.25}},
        {"name": "middle", "before": {"macs": 500_000_000, "share": 0.25}, "after": None},
    ]
    assert markdown(json.loads(json.dumps(data))) == markdown(data)


def test_markdown():
    assert markdown(compare(BEFORE, AFTER)) == (
        """\
## `net`

|  | before | after | change |
| :-- | --: | --: | --: |
| Parameters | 1.00 M | 1.50 M | +50 % |
| MACs | 2.00 G | 2.40 G | +20 % |
| Findings | 3 | 4 | +2, −1 |

### New findings: 2

| rule | layer | finding |
| :-- | :-- | :-- |
| MOFA502 | `net` | 2.40 G MACs are more than the budget of 2 G |
| MOFA201 | `blocks.3` | a separable convolution |

### Gone: 1

| rule | layer | finding |
| :-- | :-- | :-- |
| MOFA302 | `head` | a separable convolution |

2 findings as before.

<details><summary>Stages</summary>

| stage | MACs | share of MACs | change |
| :-- | --: | --: | --: |
| `encoder 1` | 1.50 G → 1.80 G | 75.0 → 75.0 % | +20 % |
| `decoder 1` | – → 600 M | – → 25.0 % | new |
| `middle` | 500 M → – | 25.0 → – % | gone |

</details>
"""
    )


def test_terminal():
    lines = terminal(compare(BEFORE, AFTER)).splitlines()
    assert [line.split() for line in lines[:5]] == [
        ["net"],
        ["before", "after", "change"],
        ["Parameters", "1.00", "M", "1.50", "M", "+50", "%"],
        ["MACs", "2.00", "G", "2.40", "G", "+20", "%"],
        ["Findings", "3", "4", "+2,", "−1"],
    ]
    lines = [line.rstrip() for line in lines]
    assert "+ MOFA502 2.40 G MACs are more than the budget of 2 G" in lines
    assert "+ MOFA201 blocks.3 a separable convolution" in lines
    assert "− MOFA302 head a separable convolution" in lines
    assert lines.index("+ MOFA502 2.40 G MACs are more than the budget of 2 G") < lines.index(
        "+ MOFA201 blocks.3 a separable convolution"
    )
    assert lines[-1] == "2 findings as before."


def test_the_same_twice_has_no_news():
    data = compare([BEFORE], [BEFORE])
    assert data["models"][0]["new"] == data["models"][0]["gone"] == []
    for shown in (markdown(data), terminal(data)):
        assert "No findings are new, and none are gone." in shown
        assert "unchanged" in shown
        assert "encoder 1" not in shown  # nothing about the stages changed


def test_several_models_are_paired_by_name():
    other, third = replace(BEFORE, model="other"), replace(BEFORE, model="third")
    data = compare([third, BEFORE, other], [other, AFTER, replace(BEFORE, model="fourth")])
    assert [model["model"] for model in data["models"]] == ["other", "net", "fourth", "third"]
    assert [len(model["new"]) for model in data["models"]] == [0, 2, 3, 0]
    assert [len(model["gone"]) for model in data["models"]] == [0, 1, 0, 3]
    assert [model["before"] is None for model in data["models"]] == [False, False, True, False]
    assert [model["after"] is None for model in data["models"]] == [False, False, False, True]
    for shown in (markdown(data), terminal(data)):
        assert "This model is new." in shown
        assert "This model is gone." in shown


def test_one_on_either_side_is_compared_whatever_its_name():
    renamed = replace(AFTER, model="bundle", findings=tuple(replace(f, model="bundle") for f in AFTER.findings))
    (model,) = compare([BEFORE], renamed)["models"]
    assert (model["model"], len(model["new"]), model["unchanged"]) == ("bundle", 2, 2)


def test_what_keeps_versions_from_being_compared_is_said():
    broken = Linted("net", "net.py:Net", (finding("", "MOFA901", "cannot be traced", level="error"),), {})
    data = compare(BEFORE, broken)
    for shown in (markdown(data), terminal(data)):
        assert "It could not be traced after." in shown
        assert "MOFA901" in shown
    smaller = replace(BEFORE, inputs="1x3x64x64", macs=125_000_000)
    assert "The inputs differ, 1x3x256x256 before and 1x3x64x64 after" in markdown(compare(BEFORE, smaller))
    assert markdown(compare([], [])) == "No models to compare.\n"


def test_long_lists_are_cut_after_what_saves_most():
    many = tuple(finding(f"blocks{i}x", fix=Fix(("p",), True, macs=-i)) for i in range(40))
    for shown in (
        (markdown(compare(replace(BEFORE, findings=()), replace(BEFORE, findings=many)))),
        terminal(compare(replace(BEFORE, findings=()), replace(BEFORE, findings=many))),
    ):
        assert shown.index("blocks39x") < shown.index("blocks38x") < shown.index("blocks15x")
        assert "blocks14x" not in shown
        assert "and 15 more" in shown


HOSTILE = st.text(st.sampled_from("|\\`*_<>[]\n\r\x1b\u2028@&ä网 b"), min_size=1, max_size=12)


@given(name=HOSTILE, path=HOSTILE, stage=HOSTILE, message=HOSTILE)
@example(name="|", path="a|b", stage="|", message="a|b")
@example(name="`\\", path="a\\|b", stage="\\|", message="a\\|<b>`*b*`")
def test_names_cannot_be_markup(name: str, path: str, stage: str, message: str):
    model = replace(AFTER, model=name, findings=(finding(path, message=message),), stages={stage: 7})
    shown = markdown(compare(replace(AFTER, model=name, findings=(), stages={}), model))
    tokens = MarkdownIt("commonmark").enable("table").parse(shown)
    cells = [tokens[i + 1] for i, token in enumerate(tokens) if token.type in ("th_open", "td_open")]
    assert len(cells) == 4 * 4 + 3 * 2 + 4 * 2  # figures, one new finding, one stage
    assert [token.type for token in tokens].count("html_block") == 2  # the fold around the stages, and nothing else
    for index, shown_text in ((-10, path), (-9, message), (-4, stage)):
        content = "".join(child.content for child in cells[index].children or ())
        assert re.sub("[ –]", "", content) == printable(shown_text).replace(" ", "")  # a dash for a blank name
    inside = [child for token in tokens for child in token.children or ()]
    assert {child.type for child in inside} <= {"text", "code_inline", "text_special"}
    assert "\x1b" not in shown
    assert tokens[0].type == "heading_open" and [t.type for t in tokens].count("heading_open") == 2


def test_a_backslash_before_a_pipe_does_not_take_its_escape_away():
    shown = markdown(compare(BEFORE, replace(BEFORE, findings=(finding("a\\|b"),))))
    assert r"| `a\ \|b` |" in shown


@given(name=HOSTILE, path=st.text(min_size=1, max_size=200), width=st.sampled_from([60, 80, 120]))
def test_lines_fit_the_terminal_and_hold_nothing_that_moves_the_cursor(name: str, path: str, width: int):
    model = replace(AFTER, model=name, findings=(finding(path),), stages={path: 7_000})
    shown = terminal(compare(BEFORE, model), width)
    assert all(c.isprintable() or c == "\n" for c in shown)
    assert max(map(cell_len, shown.split("\n"))) <= width


@pytest.mark.parametrize("width", [80, 100])
def test_ordinary_names_fit(width: int):
    long = finding(
        "decoders.3.middle_blocks.12.spatial_attention.separable_convolution.depthwise", message="word " * 40
    )
    stages = {f"a stage with a rather long name, number {i}": 10**9 + i for i in range(3)}
    shown = terminal(compare(BEFORE, replace(AFTER, findings=(long,), stages=stages)), width)
    assert max(map(cell_len, shown.splitlines())) <= width
    assert "".join(long.path.split()) in "".join(shown.split())
