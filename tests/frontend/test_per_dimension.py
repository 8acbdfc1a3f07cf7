"""A stride or padding that was set to one number is taken for one a dimension."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mofa_compiler import apply, capture, load, verify
from mofa_compiler.frontend.per_dimension import with_tuples


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.head = (nn.Conv2d(i, o, 3, padding=1) for i, o in ((3, 8), (8, 8), (8, 3)))
        self.down, self.up = nn.Conv2d(8, 8, 2, stride=2), nn.ConvTranspose2d(8, 8, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(self.stem(x)).relu()
        return self.head(y + self.up(self.down(y)))  # type: ignore[no-any-return]


def strides(net: Net) -> None:
    net.body.stride = 1  # type: ignore[assignment]
    net.down.stride = net.up.stride = 2  # type: ignore[assignment]


def dilation(net: Net) -> None:
    net.body.padding = net.body.dilation = 2  # type: ignore[assignment]


@pytest.mark.parametrize("change", [strides, dilation])
@pytest.mark.sample(1)
def test_numbers_are_rewritten_like_tuples(change: Callable[[Net], None], tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, x = Net().eval(), torch.rand(1, 3, 16, 16)
    change(net)
    before = dict(vars(net.body))
    program = capture(net, x)
    assert torch.equal(program.graph_module(x), net(x))
    assert program.modules["body"].weight is net.body.weight
    result = apply(net, "mofa", x)
    bundle = result.save(tmp_path / "bundle")
    assert torch.equal(load(bundle)(x), result.model.eval()(x))
    assert not verify(bundle, net).problems
    assert vars(net.body) == before


def test_only_what_needs_it_is_copied() -> None:
    class Own(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * int(self.padding)  # type: ignore[arg-type, no-any-return]

    plain, own = nn.Conv2d(3, 3, 3), Own(3, 3, 3)
    own.padding = 1  # type: ignore[assignment]
    assert with_tuples(plain) is plain
    assert with_tuples(own) is own
