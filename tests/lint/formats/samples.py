"""Findings to render: of a network like NAFNet, of a second one, and of arbitrary text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hypothesis import strategies as st

from mofa_compiler.lint.finding import Finding, Fix, Linted, Outcome, Position
from mofa_compiler.lint.rule import Rule, Subject

SOURCE = '''\
"""A network."""

from torch import nn


class Block(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.norm = LayerNorm2d(c)
        self.conv2 = nn.Conv2d(2 * c, 2 * c, 3, padding=1, groups=2 * c)
        self.up = nn.ConvTranspose2d(
            c,
            c,
            2,
            stride=2,
        )
'''


@dataclass(frozen=True)
class _Nothing(Rule):
    """Finds nothing."""

    def check(self, subject: Subject) -> Iterator[Finding]:
        return iter(())


@dataclass(frozen=True)
class Separable(_Nothing):
    """A depthwise convolution where a partial one would be faster.

    ## What it does
    Looks for `Conv2d(groups=channels)`.

    ## Why is this bad?
    It is bound by memory | not by arithmetic.
    """

    code = "MOFA201"
    name = "separable-convolution"
    fixes = "approximate"


@dataclass(frozen=True)
class Norm(_Nothing):
    """LayerNorm2d is a custom function."""

    code = "MOFA402"
    name = "custom-layer-norm"
    level = "note"
    fixes = "exact"
    default = "engine"


@dataclass(frozen=True)
class Parameters(_Nothing):
    """The network has more parameters than its budget."""

    code = "MOFA501"
    name = "parameters"
    level = "error"


@dataclass(frozen=True)
class Untraceable(_Nothing):
    """The model cannot be traced."""

    code = "MOFA901"
    name = "untraceable"
    level = "error"


RULES = {rule.code: rule for rule in (Untraceable, Separable, Norm, Parameters)}


def write_source(root: Path) -> None:
    (root / "nets").mkdir()
    (root / "nets" / "nafnet.py").write_text(SOURCE, encoding="utf-8")
    (root / "pyproject.toml").write_text("[tool.mofa]\n", encoding="utf-8")


def outcome(root: Path) -> Outcome:
    """Twenty-six convolutions of one line, a layer made in several lines, a broken budget, and a broken model."""
    file = str(root / "nets" / "nafnet.py")
    made = Position(file, 10, 10, 22, 73)
    depthwise = [
        Finding(
            "MOFA201",
            "separable-convolution",
            "nafnet",
            f"encoders.{index // 8}.{index % 8}.conv2",
            "Conv2d(128, k3, depthwise)",
            "a depthwise 3x3 convolution of 128 channels is bound by memory where the network will run: a partial one "
            "convolves 32 of them, twice",
            stage=f"encoder {index // 8 + 1}",
            position=made,
            fix=Fix(
                ("sepconv-to-pconv", "widen-portion"), False, 46_000, -3_100_000 * (1 + index), 0.783, "xnnpack 1.5.1"
            ),
        )
        for index in range(26)
    ]
    up = Finding(
        "MOFA301",
        "transposed-convolution",
        "nafnet",
        "ups.0",
        "ConvTranspose2d(64, k2, s2)",
        "a transposed convolution leaves a checkerboard and is slow",
        position=Position(file, 11, 16, 19, 10),
        fix=Fix(("decouple-upsampling",), True, 0, -1_000_000),
    )
    norm = Finding(
        "MOFA402",
        "custom-layer-norm",
        "nafnet",
        "norm",
        "LayerNorm2d(64)",
        "layer normalisation by a custom function",
        "note",
        position=Position(file, 9),
        fix=Fix(("lower-layer-norm",), True),
    )
    budget = Finding(
        "MOFA501",
        "parameters",
        "nafnet",
        "",
        "NAFNet",
        "17.1 M parameters are more than the budget, 16 M",
        "error",
    )
    broken = Finding(
        "MOFA901", "untraceable", "unet", "", "UNet", "the model cannot be built: TypeError: no c", "error"
    )
    return Outcome(
        [
            Linted(
                "nafnet",
                "nets/nafnet.py:NAFNet",
                (*depthwise, up, norm, budget),
                {"comment": 2, "baseline": 1},
                17_100_000,
                16_100_000_000,
                {"encoder 1": 4_000_000_000},
                "1x3x256x256",
                seconds=1.25,
            ),
            Linted("unet", "nets/unet.py:UNet", (broken,), {}),
            Linted("tiny", "nets.tiny:Tiny", (), {}, 1200, 3_000_000, {}, "1x3x32x32"),
        ]
    )


hostile = st.text(st.characters(), max_size=20) | st.sampled_from(
    [
        "[bold red]x[/]",
        "\x1b[31mred\x1b[0m",
        "a\nb\r\nc",
        "::error::x",
        "%0A::error::x",
        "a|b`c\\|d``",
        "</details><script>",
        "<!-- ",
        "]]>",
        "\ud800",
        "\udcff",
        "\ufffe",
        "\x00",
        "@everyone",
        "[a](http://b)",
        "\u202egnp.exe",
        "\u2028",
        "",
        " ",
    ]
)
_numbers = st.none() | st.integers(-(10**13), 10**13)
positions = st.builds(
    Position,
    hostile,
    st.integers(1, 10**6),
    st.none() | st.integers(1, 10**6),
    st.none() | st.integers(1, 500),
    st.none() | st.integers(1, 500),
)
fixes = st.builds(
    Fix,
    st.lists(hostile, min_size=1, max_size=3).map(tuple),
    st.booleans(),
    _numbers,
    _numbers,
    st.none() | st.floats(),
    st.none() | hostile,
    st.lists(hostile, max_size=2).map(tuple),
)


@st.composite
def outcomes(draw: st.DrawFn) -> Outcome:
    """Any outcome: of some models with hostile names, each with findings of its own."""
    models = []
    for name in draw(st.lists(hostile, max_size=3, unique=True)):
        findings = st.builds(
            Finding,
            st.sampled_from(["MOFA201", "MOFA901", "MOFA777"]),
            st.sampled_from(["separable-convolution"]) | hostile,
            st.just(name),
            hostile,
            hostile,
            hostile,
            st.sampled_from(["error", "warning", "note"]),
            st.none() | hostile,
            st.none() | positions,
            st.none() | fixes,
        )
        models.append(
            Linted(
                name,
                draw(hostile),
                tuple(draw(st.lists(findings, max_size=4))),
                draw(st.dictionaries(hostile, st.integers(0, 5), max_size=2)),
                draw(_numbers),
                draw(_numbers),
                inputs=draw(hostile),
            )
        )
    return Outcome(models)
