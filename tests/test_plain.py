"""Which layer of torch's a module of another class computes as."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mofa_compiler.layers import PConv2d
from mofa_compiler.plain import computes_as_layer, stands_for


class Named(nn.Conv2d):
    kind = "own"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.gain = 2.0

    def __repr__(self) -> str:
        return "named"

    @property
    def in_and_out(self) -> int:
        return self.in_channels + self.out_channels


class Forward(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


class Inner(nn.Conv2d):
    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(x, weight * 2, bias)


class Stride(nn.Conv2d):
    @property
    def stride(self) -> Any:
        return 2

    @stride.setter
    def stride(self, value: Any) -> None: ...


class Frozen(nn.Conv2d):
    def train(self, mode: bool = True) -> Frozen:
        return super().train(False)


class Again(Named):
    def reset_parameters(self) -> None:
        nn.init.ones_(self.weight)


@pytest.mark.parametrize(
    ("kind", "stands", "computes"),
    [
        (nn.Conv2d, True, True),
        (Named, True, True),
        (Again, True, True),
        (Frozen, False, True),
        (Forward, False, False),
        (Inner, False, False),
        (Stride, False, False),
    ],
)
def test_what_a_subclass_replaces_decides(kind: type[nn.Conv2d], stands: bool, computes: bool) -> None:
    torch.manual_seed(0)
    module = kind(3, 4, 1)
    assert (stands_for(module) is nn.Conv2d) is stands
    assert computes_as_layer(module) is computes
    layer = nn.Conv2d(3, 4, 1)
    layer.load_state_dict({key: module._parameters[key] for key in ("weight", "bias")})  # type: ignore[misc]
    x = torch.rand(1, 3, 4, 4)
    assert (module(x).shape == layer(x).shape and torch.equal(module(x), layer(x))) is computes


def test_containers_are_no_layers() -> None:
    assert stands_for(nn.Module()) is None
    assert not computes_as_layer(nn.Module())
    assert stands_for(PConv2d(8, 2)) is PConv2d
