"""What the executor has to know of a page beyond what stands there. Every entry has to be needed.

A guide should need none: its blocks name their files (`title="net.py"`), its sizes are small. These show sizes that
mean something, and take for granted what their reader has.
"""

from __future__ import annotations

_HASTE = 'unittest.mock.patch.multiple("mofa_compiler.autotune.benchmark", PIECE_SECONDS=0.02, WHOLE_SECONDS=0.1)'

_SHORT = 'unittest.mock.patch("mofa_compiler.frontier.SECONDS", 0.1)'

_UNET = """
import torch
from architectures import UNet

model = original_model = UNet(width=4, depth=1).eval()
example_inputs = torch.rand(1, 3, 32, 32)
images = batches = [torch.rand(2, 3, 32, 32)]
"""

_ROW = """
import torch

example_inputs, batches = torch.rand(1, 3, 32, 32), [torch.rand(2, 3, 32, 32)]
model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.Conv2d(4, 4, 1), torch.nn.Conv2d(4, 3, 1))
"""

_PRICED = f"""
{_ROW}
from mofa_compiler import Roadmap

roadmap = Roadmap.load("mofa").with_target("eager")
batches *= 2
"""

BEFORE: dict[str, dict[str, tuple[str, str]]] = {
    "README.md": {"import mofa_compiler\nfrom mofa_compiler.passes": (".", _UNET)},
    "examples/guides/how-to/networks.md": {"from model import Model": ("out/nafnet", "")},
    "examples/guides/how-to/quality.md": {"import mofa_compiler": (".", _UNET)},
    "examples/guides/how-to/engine.md": {"import mofa_compiler": (".", _ROW)},
    "examples/guides/how-to/front.md": {"import tempfile": (".", _PRICED)},
}
"""By page and by how a block begins: the folder that it is in, and code that makes what its reader has"""

_AS_TOLD = "--as-told --calibrate none --engine eager --input 1x3x64x64"
_DECIDING = "a minute of deciding; the tutorial does it"
_WHOLE = r"result = mofa_compiler\.apply\(model, roadmap, .*calibration=batches\)"

SMALLER: dict[str, list[tuple[str, str, str]]] = {
    "README.md": [
        ("--degrade gaussian:25 --input 1x3x256x256 --out out/nafnet", f"{_AS_TOLD} --out out/nafnet", _DECIDING),
        (
            "--as-told --accept-loss --out out/told",
            f"{_AS_TOLD} --accept-loss --out out/told",
            "the size of the other one",
        ),
        ("mofa front .*", "mofa front --help", "minutes of deciding"),
    ],
    "examples/guides/how-to/networks.md": [
        ("--input 1x3x64x64 --out out/nafnet", f"{_AS_TOLD} --out out/nafnet", _DECIDING),
    ],
    "examples/guides/how-to/basicsr.md": [
        (r"(--checkpoint net_g_5000\.pth .*)--input 1x3x32x32", rf"\1{_AS_TOLD}", _DECIDING),
        (r"(--strip-prefix module\. )--input 1x3x32x32", rf"\1{_AS_TOLD}", _DECIDING),
    ],
    "examples/guides/how-to/lightning.md": [
        ("--input 1x3x32x32 --out out/unet", f"{_AS_TOLD} --out out/unet", _DECIDING),
    ],
    "examples/guides/how-to/front.md": [
        (
            r"(?s)mofa front \$net .*--out out/front",
            "mofa front $net --checkpoint $weights --degrade gaussian:25 --help",
            "minutes of deciding",
        ),
        (
            r"with tempfile\.(.*)\n",
            rf"import unittest.mock\nwith {_HASTE}, {_SHORT}, tempfile.\1\n",
            "seconds of measuring, for what is too small to be measured",
        ),
    ],
    "examples/guides/how-to/quality.md": [
        (
            "--calibrate synthetic (.*) --out out/kept",
            r"--as-told --engine eager --calibrate synthetic \1 --crops 3 --crop-size 32 --out out/kept --accept-loss",
            _DECIDING,
        ),
        (r"(mofa recover .*)", r"\1 --steps 2 --patch 32", "1000 steps otherwise"),
        ("tuning=100", "tuning=2", "seconds"),
    ],
    "CONTRIBUTING.md": [
        (
            "from mofa_compiler.passes import GroupedToDense, SiluToHardswish",
            "from passes.grouped_to_dense import GroupedToDense\nfrom passes.silu_to_hardswish import SiluToHardswish",
            "they are none of ours",
        ),
    ],
    "examples/guides/how-to/engine.md": [
        (
            r"(?s)--engine xnnpack --input 1x3x256x256 .*--out out/phone",
            r"--as-told --calibrate none --engine eager --input 1x3x32x32 --out out/phone",
            _DECIDING,
        ),
        ("--engine xnnpack --(per-layer|record)", r"--engine eager --\1 --seconds 1", "compiling; phone.md does it"),
        ("(mofa export out/phone --to) executorch", r"\1 onnx", "a minute of compiling; phone.md does it"),
        (r'with_target\("xnnpack"(.*)1x3x256x256', r'with_target("eager"\g<1>1x3x32x32', "minutes of measuring"),
        (
            rf"({_WHOLE})\nprint\(result\.decisions",
            rf"import unittest.mock\nwith {_HASTE}:\n    \1\nprint(result.decisions",
            "minutes of measuring, for what is too small to be measured",
        ),
        (
            r'engine="xnnpack", input_shape=\(1, 3, 256, 256\)',
            'engine="eager", input_shape=(1, 3, 32, 32), seconds=1',
            "20 s",
        ),
    ],
}
"""By page: a pattern in its commands and Python, what stands there when it is executed, and what that saves"""

SLOW = {"phone.md": "measures for minutes on an engine: a step of .ci/run, by python -m tests.docs"}
"""Pages that are not executed by pytest"""

_MAKE = "sets up an environment of its own: a step of .ci/run"

ELSEWHERE: dict[str, tuple[str, str]] = {
    "make (demo|test|lint|docs)": ("", _MAKE),
    r"pip install torch==2\.13\.0": ("", "hundreds of megabytes: .ci/run installs it with the wheel"),
    r"pip install \.": ("", "the same: .ci/run installs the wheel in an empty environment"),
    r"pip install '(mofa-compiler|\.)\[[\w,]+\]'": ("", "hundreds of megabytes: make test installs every extra"),
}
"""Commands that are not run here: what is run in their place, if anything, and why; test_pages.py looks after them"""
