"""The first layer that overflows in half precision, or that loses too much there."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mofa_compiler.frontend import capture
from mofa_compiler.graph.call_spec import CallSpec
from mofa_compiler.verification.half_storage import HalfStorage, in_half_storage


class Norm(nn.Module):
    """Divides by the root of a sum of squares over channels, and writes into a buffer."""

    def __init__(self, scale: float):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 48, 1)
        self.scale = scale
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor, *, weight: Tensor | None = None) -> Tensor:
        self.count += 1
        y = self.conv(x) * self.scale
        y = y if weight is None else y * weight
        return y / ((y * y).sum(1, keepdim=True) + 1e-6).sqrt()


def stored(scale: float, *inputs: float, **kwargs: Tensor) -> HalfStorage:
    net = Norm(scale).eval()
    calls = [CallSpec((size * torch.rand(1, 3, 8, 8) + size,), kwargs) for size in inputs]
    module = capture(net, {"x": torch.rand(1, 3, 8, 8), **kwargs}).graph_module.eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    found = in_half_storage(module, calls, "fp16")
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    return found


def test_small_values_fit() -> None:
    found = stored(1, 1.0, weight=torch.ones(()))
    assert found.ok and found.first_overflow is None and found.first_loss is None
    assert 0 < found.layers[-1].error < 2e-3 and 0 < found.layers[-1].high <= 1


@pytest.mark.parametrize("inputs", [(1.0,), (0.001, 1.0), (1.0, 0.001)])
def test_sums_of_squares_overflow_on_the_worst_input(inputs: tuple[float, ...]) -> None:
    found = stored(60, *inputs)
    over = found.first_overflow
    assert not found.ok and over is not None and over is found.first_loss
    assert over.high > torch.finfo(torch.float16).max and "sum" in over.what
    assert over.what in found.sentence


def test_values_that_vanish_are_a_loss() -> None:
    found = stored(1e-6, 1.0)
    lost = found.first_loss
    assert found.first_overflow is None and lost is not None and lost.error > 0.02
    assert lost.what in found.sentence
