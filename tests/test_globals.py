"""No global of the process is different after a call, also after one that raised."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from architectures import NAFNet
from mofa_compiler import Result, apply, capture
from mofa_compiler.base.errors import CaptureError
from mofa_compiler.base.torch_state import import_compiler

from .process_globals import changed, names, settings

HERE = sys.modules[__name__]
X = torch.rand(1, 3, 32, 32)


class Asks(nn.Module):
    """Its forward meets what is patched while it is traced: factories, numbers, questions, constants, autograd."""

    def __init__(self, raises: type[BaseException] | None = None):
        super().__init__()
        self.conv, self.raises = nn.Conv2d(3, 3, 3, padding=1), raises

    def forward(self, x: Tensor) -> Tensor:
        ones = torch.ones(1, 1, x.shape[2], int(np.ceil(x.shape[3] / 2)) * 2)
        if isinstance(x, Tensor) and callable(self.conv) and torch.is_tensor(x) and type(x) is Tensor:
            x = self.conv(x) * ones
        if self.raises:
            raise self.raises("in the middle of a forward")
        return Doubled.apply(x) + torch.zeros(1).expand(x.shape[2], max(x.shape[3], 1)) + x.mean() ** math.sqrt(4)


class Draws(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn(1)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return 2 * gradients[0]


ASKS = Asks().eval()
NETWORK = NAFNet(width=4, enc_blk_nums=(1,), middle_blk_num=1, dec_blk_nums=(1,)).eval()


def rewritten(**options: Any) -> Result:
    result = apply(NETWORK, "paper-nafnet", X, **options)
    assert any(diff.edits for diff in result.diffs)
    return result


def raises(error: type[BaseException], call: Callable[..., object], model: nn.Module, *arguments: Any) -> None:
    with pytest.raises(error):
        call(model, *arguments)


ACTIONS: dict[str, Callable[[], object]] = {
    "capture": partial(capture, ASKS, X),
    "capture without gradients": partial(torch.no_grad()(capture), ASKS, X),
    "apply": rewritten,
    "calibration": partial(rewritten, calibration=[X, 1 - X]),
    "verify": lambda: rewritten().verify(),
    "a capture that raises": partial(raises, CaptureError, capture, Asks(ValueError), X),
    "a capture that is interrupted": partial(raises, KeyboardInterrupt, capture, Asks(KeyboardInterrupt), X),
    "an apply that raises": partial(raises, CaptureError, apply, Asks(RuntimeError), [], X),
    "a capture that is refused": partial(raises, CaptureError, capture, Draws().eval(), X),
}


@pytest.mark.parametrize("action", ACTIONS)
def test_everything_is_as_it_was(action: str) -> None:
    import_compiler()
    before, settings_before = names([HERE]), settings()
    ACTIONS[action]()
    assert not changed(before, names([HERE]))
    assert settings() == settings_before


def test_what_is_patched_while_tracing_is_looked_at() -> None:
    """The comparison would see it: while forward runs, names are others than before."""
    before = names([HERE])
    seen: set[str] = set()

    class Looks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.update(changed(before, names([HERE])))
            return x * 2

    capture(Looks(), X, compare=False)
    assert {"builtins.isinstance", "torch.zeros", "numpy.array", "Tensor.__new__", "Module.__call__"} <= seen
    assert {"Function.apply", "ScriptFunction.__call__", f"{__name__}.type", "math.sqrt"} <= seen


IN_A_FRESH_PROCESS = """
import sys
sys.path[:0] = {paths!r}
import torch
from tests.process_globals import changed, names, settings

from architectures import NAFNet
from torch.utils.checkpoint import checkpoint

class Checkpointed(NAFNet):
    def forward(self, x):
        return checkpoint(super().forward, x, use_reentrant=False)

model, x = Checkpointed().eval(), torch.rand(1, 3, 32, 32)
before, settings_before = names(), settings()

def check():
    different = changed(before, names())
    assert different.keys() <= {{"torch.manual_seed"}}, different  # torch._dynamo's own doing, when it is imported
    for key, value in settings().items():
        assert value == settings_before[key], key

import mofa_compiler
check()
assert "torch._dynamo" not in sys.modules
mofa_compiler.capture(model, x)
check()

def compute(x):
    return torch._refs.nn.functional.relu(x) + x.mean(1, keepdim=True) - x.pow(2)

x = torch.rand(1, 4, 8, 8)
assert torch._dynamo.explain(compute)(x).graph_break_count == 0
assert torch.allclose(torch.compile(compute, backend="eager")(x), compute(x))
assert torch._dynamo.utils.unpatched_nn_module_call is torch.nn.Module.__call__
"""


def test_importing_and_the_first_capture_change_nothing() -> None:
    """In a process in which nothing is imported yet; torch.compile finds torch as it was, and works."""
    root = Path(__file__).parents[1]
    command = [sys.executable, "-c", IN_A_FRESH_PROCESS.format(paths=[str(root), str(root / "examples")])]
    process = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
