"""Decisions on tensors whose values no input decides."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mofa_compiler import capture
from mofa_compiler.base.errors import CaptureError
from tests.raising import raising


class Net(nn.Module):
    def __init__(self, scale: Callable[[Net, Tensor], Tensor | float]):
        super().__init__()
        self.stem, self.scale = nn.Conv2d(3, 4, 3, padding=1), scale
        self.gain = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.stem(x)
        return y * self.scale(self, y)


def std(y: Tensor) -> Tensor:
    return torch.as_tensor([0.5, 0.25, 0.5, 0.25], dtype=y.dtype, device=y.device)


def checked(_: Net, y: Tensor) -> Tensor:
    if (std(y) == 0).any():
        raise ValueError("a deviation of 0")
    return std(y)[:, None, None]


def branched(_: Net, y: Tensor) -> Tensor | float:
    return 2.0 if bool((std(y) > 0.3).all()) else 3.0


def numbered(_: Net, y: Tensor) -> Tensor | float:
    return float(std(y).max()) + std(y).sum().item()


def repeated(_: Net, y: Tensor) -> Tensor | float:
    return sum(y.mean() for _ in range(int(torch.full((2,), 3, device=y.device).max())))


@pytest.mark.parametrize("scale", [checked, branched, numbered, repeated], ids=lambda f: f.__name__)
def test_constants_are_known(scale: Callable[[Net, Tensor], Tensor | float]) -> None:
    net = Net(scale).eval()
    program = capture(net, torch.rand(1, 3, 32, 32))
    assert len(program.comparison.sizes) == 2
    for side in (32, 48):
        x = torch.rand(1, 3, side, side)
        with torch.no_grad():
            assert torch.equal(program.graph_module(x), net(x))


def by_input(_: Net, y: Tensor) -> float:
    return 2.0 if (std(y) < y.mean()).any() else 1.0


def by_weight(net: Net, _: Tensor) -> float:
    return 2.0 if net.gain.sum() > 3 else 1.0


def by_size(_: Net, y: Tensor) -> float:
    return 2.0 if torch.zeros(y.shape[-1], device=y.device).sum() + y.shape[-1] > 3 else 1.0


def by_chance(_: Net, y: Tensor) -> float:
    return 2.0 if torch.rand(3, device=y.device).sum() > 1 else 1.0


def written(_: Net, y: Tensor) -> float:
    value = std(y)
    value.add_(y.mean())
    return 2.0 if value.sum() > 3 else 1.0


@pytest.mark.parametrize("scale", [by_input, by_weight, by_size, by_chance, written], ids=lambda f: f.__name__)
def test_what_something_else_decides_is_not(scale: Callable[[Net, Tensor], float]) -> None:
    with raising(CaptureError, "untraceable"):
        capture(Net(scale).eval(), torch.rand(1, 3, 32, 32))
