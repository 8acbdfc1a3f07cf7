"""`full`, as it is read at a terminal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rich.cells import cell_len

from mofa_compiler.lint.finding import Finding, Fix, Linted, Outcome, Position
from mofa_compiler.lint.formats import Context, renderer

full = renderer("full")

EXPECTED = """\
nafnet (nets/nafnet.py:NAFNet): 17.1 M parameters, 16.1 G MACs at 1x3x256x256

error MOFA501 parameters: 17.1 M parameters are more than the budget, 16 M
   = help: mofa rule MOFA501

warning MOFA201 separable-convolution: a depthwise 3x3 convolution of 128
  channels is bound by memory where the network will run: a partial one
  convolves 32 of them, twice
  --> nets/nafnet.py:10:22
   |
10 |         self.conv2 = nn.Conv2d(2 * c, 2 * c, 3, padding=1, groups=2 * c)
   |                      ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
   |
   = 26 layers: encoders.0.0.conv2, encoders.0.1.conv2, encoders.0.2.conv2
                and 23 more
   = fix: sepconv-to-pconv, then widen-portion (approximate), by
          --fix --unsafe-fixes
   = effect: together −1.09 G MACs, +1.20 M parameters, 0.783 × the network's
             time on xnnpack 1.5.1
   = help: mofa rule MOFA201

warning MOFA301 transposed-convolution: a transposed convolution leaves a
  checkerboard and is slow
  --> nets/nafnet.py:11:19
   |
11 |         self.up = nn.ConvTranspose2d(
   |                   ^^^^^^^^^^^^^^^^^^^
12 |             c,
13 |             c,
14 |             2,
   | …
   |
   = layer: ups.0
   = fix: decouple-upsampling (exact), by --fix
   = effect: −1.00 M MACs, the same parameters
   = help: mofa rule MOFA301

note MOFA402 custom-layer-norm: layer normalisation by a custom function
 --> nets/nafnet.py:9
  |
9 |         self.norm = LayerNorm2d(c)
  |         ^^^^^^^^^^^^^^^^^^^^^^^^^^
  |
  = layer: norm
  = fix: lower-layer-norm (exact), by --fix
  = help: mofa rule MOFA402

unet (nets/unet.py:UNet)

error MOFA901 untraceable: the model cannot be built: TypeError: no c
   = help: mofa rule MOFA901

tiny (nets.tiny:Tiny): 1.20 k parameters, 3.00 M MACs at 1x3x32x32
  no findings

30 findings in 3 models: 26 MOFA201, 1 MOFA301, 1 MOFA402, 1 MOFA501, 1 MOFA901.
2 fixable with --fix (exact); 26 more with --fix --unsafe-fixes (approximate); 3
  left out (2 by comment, 1 by baseline).
"""


def test_the_whole_report_at_80_columns(outcome: Outcome, context: Context) -> None:
    assert full(outcome, context) == EXPECTED


@pytest.mark.parametrize("width", [40, 50, 80, 120])
def test_lines_fit_the_terminal(width: int, outcome: Outcome, context: Context) -> None:
    lines = full(outcome, replace(context, width=width)).splitlines()
    assert max(map(cell_len, lines)) <= width


def test_findings_of_one_line_that_say_different_things_are_listed_in_one_entry(context: Context) -> None:
    position = Position("nets/nafnet.py", 10, 10, 22, 73)
    findings = tuple(
        Finding("MOFA201", "r", "m", f"layer{width}.{index}", "s", f"{width} channels", position=position)
        for width in (16, 32, 64, 128, 256, 512)
        for index in range(2)
    )
    text = full(Outcome([Linted("m", "t", findings, {})]), context)
    assert text.count("--> nets/nafnet.py:10:22") == 1
    assert "MOFA201 r: a depthwise convolution where a partial one would be faster\n" in text
    assert "= 2 layers: 16 channels: layer16.0, layer16.1\n" in text
    assert "layer256" not in text and "= more: 4 findings of 2 more kinds\n" in text
    assert "MOFA201 r: 12 findings of 6 kinds\n" in full(
        Outcome([Linted("m", "t", findings, {})]), replace(context, rules={})
    )


def test_a_saving_is_not_told_where_that_of_one_layer_is_unknown(context: Context) -> None:
    findings = tuple(
        Finding("MOFA201", "r", "m", f"l{index}", "s", "x", fix=Fix(("p",), True, 5, macs))
        for index, macs in enumerate((-10, None))
    )
    text = full(Outcome([Linted("m", "t", findings, {})]), context)
    assert "effect: together +10 parameters\n" in text


def test_styles_change_nothing_but_the_style(outcome: Outcome, context: Context) -> None:
    from rich.text import Text

    coloured = full(outcome, replace(context, colour=True))
    assert "\x1b[1;31merror" in coloured
    assert Text.from_ansi(coloured).plain.rstrip() == EXPECTED.rstrip()


def test_markup_in_a_name_is_shown_as_it_is(context: Context) -> None:
    finding = Finding("MOFA201", "r", "m", "[bold red]x[/] :smile: \x1b[31m", "s", "[link=a]y[/link]")
    text = full(Outcome([Linted("m", "t", (finding,), {})]), replace(context, colour=True))
    assert "[bold red]x[/] :smile: \\x1b[31m" in text and "[link=a]y[/link]" in text


@pytest.mark.parametrize("file", ["nets/gone.py", "nets", "nul\0l.py", "binary.py", "latin.py"])
def test_a_file_that_cannot_be_read_leaves_the_position(file: str, root: Path, context: Context) -> None:
    (root / "binary.py").write_bytes(b"\x00\xff\xfe" * 50)
    (root / "latin.py").write_bytes(b"# \xe9\nx = 1\n")
    finding = Finding("MOFA201", "r", "m", "a", "s", "x", position=Position(file, 3, column=2))
    text = full(Outcome([Linted("m", "t", (finding,), {})]), context)
    assert f"--> {file.replace(chr(0), chr(92) + 'x00')}:3:2\n" in text
    assert "^" not in text
