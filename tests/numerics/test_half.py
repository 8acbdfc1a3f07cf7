"""A network in half precision takes and returns what it did before."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from mofa_compiler.base.precision import Precision
from mofa_compiler.formats.torch_export import trace
from mofa_compiler.frontend import capture
from mofa_compiler.numerics.half import HALVES, in_half


class Net(nn.Module):
    """Takes an image twice, once by name, and an index, and returns several tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.table = nn.Embedding(5, 4)

    def forward(self, x: Tensor, index: Tensor, *, again: Tensor) -> dict[str, Tensor]:
        return {"y": self.conv(x + again) + self.table(index)[:, :, None, None], "index": index}


@pytest.mark.parametrize("captured", [False, True])
@pytest.mark.parametrize("precision", HALVES)
def test_inputs_and_outputs_are_those_of_before(precision: Precision, captured: bool) -> None:
    net = Net().eval()
    x, index = torch.rand(1, 3, 8, 8), torch.tensor([2])
    expected = net(x, index, again=x)
    module = capture(net, {"x": x, "index": index, "again": x}).graph_module if captured else copy.deepcopy(net)
    half = in_half(module, precision)
    assert {p.dtype for p in half.parameters()} == {HALVES[precision]}
    expected = {name: value.detach() for name, value in expected.items()}
    for one in (half, copy.deepcopy(half), trace(half, (x, index), {"again": x}).module()):
        found = one(x, index, again=x)
        assert found["y"].dtype == torch.float32 and torch.equal(found["index"], index)
        error = float((found["y"].detach() - expected["y"]).norm() / expected["y"].norm())
        assert 0 < error < 4 * torch.finfo(HALVES[precision]).eps
