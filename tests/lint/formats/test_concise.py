"""`concise`: one line a finding, that editors can follow."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given

from mofa_compiler.lint.finding import Finding, Linted, Outcome, Position
from mofa_compiler.lint.formats import Context, renderer
from tests.lint.formats.samples import RULES, outcomes

concise = renderer("concise")


def test_a_line_has_place_code_message_and_layer(outcome: Outcome, context: Context) -> None:
    lines = concise(outcome, context).splitlines()
    assert len(lines) == 30
    assert lines[0].startswith("nets/nafnet.py:10:22: MOFA201 a depthwise 3x3 convolution of 128 channels")
    assert lines[0].endswith(" [nafnet: encoders.0.0.conv2]")
    assert lines[-4] == (
        "nets/nafnet.py:11:19: MOFA301 [*] a transposed convolution leaves a checkerboard and is slow [nafnet: ups.0]"
    )
    assert lines[-3] == "nets/nafnet.py:9: MOFA402 [*] layer normalisation by a custom function [nafnet: norm]"
    assert lines[-1] == "nets/unet.py:UNet: MOFA901 the model cannot be built: TypeError: no c [unet]"


def test_one_model_needs_no_name_and_a_file_outside_is_absolute(root: Path, context: Context) -> None:
    findings = (
        Finding("MOFA201", "r", "m", "a.b", "s", "x", position=Position("/elsewhere/../lib/net.py", 3)),
        Finding("MOFA201", "r", "m", "c", "s", "y", position=Position(f"{root}/nets/../net.py", 4, column=1)),
    )
    assert concise(Outcome([Linted("m", "t", findings, {})]), context) == (
        "/lib/net.py:3: MOFA201 x [a.b]\nnet.py:4:1: MOFA201 y [c]\n"
    )


def test_a_root_behind_a_link_is_the_root(root: Path, tmp_path_factory: object) -> None:
    link = root / "link"
    link.symlink_to(root / "nets", target_is_directory=True)
    finding = Finding("MOFA201", "r", "m", "a", "s", "x", position=Position(f"{root}/nets/nafnet.py", 3))
    assert concise(Outcome([Linted("m", "t", (finding,), {})]), Context(RULES, link)).startswith("nafnet.py:3:")


@given(outcome=outcomes())
def test_hostile_names_stay_on_their_line(outcome: Outcome) -> None:
    text = concise(outcome, Context(RULES, Path("/nowhere")))
    assert len(text.splitlines()) == len(outcome.findings)
