"""Exact lowerings hold in half precision where the original does, on values with deviations around 50."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mofa_compiler import apply
from mofa_compiler.nn.partial_conv import PConv2d
from mofa_compiler.numerics.equivalence import PrecisionWarning, warn_of_precision
from mofa_compiler.passes import LowerGates, LowerLayerNorm, LowerPConv, LowerShuffle, MergeLinear, WidenPortion
from mofa_compiler.rewriting.pass_api import Pass

CHANNELS = 48


class Permuted(nn.Module):
    def __init__(self, channels: int = CHANNELS) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # type: ignore[no-any-return]


class Written(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        return (x - mean) / ((x - mean).pow(2).mean(1, keepdim=True) + 1e-6).sqrt()


class Gate(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        one, other = x.chunk(2, 1)
        return one * other.sigmoid()


def point(outputs: int = CHANNELS, inputs: int = CHANNELS, *, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 1, bias=bias)


def partial() -> list[nn.Module]:
    return [point(), PConv2d(CHANNELS, 12), point(), nn.ReLU()]


MIDDLES: dict[str, tuple[Callable[[], list[nn.Module]], Pass, int]] = {
    "layer norm": (lambda: [Permuted()], LowerLayerNorm(), CHANNELS),
    "written out": (lambda: [Written()], LowerLayerNorm(), CHANNELS),
    "batch norm": (lambda: [point(), nn.BatchNorm2d(CHANNELS)], MergeLinear(), CHANNELS),
    "two convolutions": (lambda: [point(), point()], MergeLinear(), CHANNELS),
    "gate": (lambda: [point(2 * CHANNELS), Gate()], LowerGates(), CHANNELS),
    "shuffle": (lambda: [point(64, bias=False), nn.PixelShuffle(2)], LowerShuffle(), 16),
    "widened": (partial, WidenPortion(where="*"), CHANNELS),
    **{
        form: (partial, LowerPConv(form=form), CHANNELS)
        for form in ("two-products", "two-slices", "born-apart", "merged", "in-place")
    },
}


def net(middle: Callable[[], list[nn.Module]], outputs: int) -> nn.Sequential:
    torch.manual_seed(0)
    tail = [nn.Conv2d(outputs, 8, 3, padding=1), nn.Conv2d(8, 3, 1)]
    model = nn.Sequential(nn.Conv2d(3, CHANNELS, 3, padding=1), *middle(), *tail).eval()
    with torch.no_grad():
        model[0].weight.mul_(150)  # type: ignore[operator]
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 50)  # type: ignore[union-attr]
                module.running_var.uniform_(500, 5000)  # type: ignore[union-attr]
    return model


def off(model: nn.Module, x: Tensor, expected: Tensor) -> float:
    with torch.no_grad():
        return float((model(x).double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", MIDDLES)
@pytest.mark.sample(4)
def test_lowered_as_good_as_the_original(name: str, dtype: torch.dtype) -> None:
    middle, pass_, outputs = MIDDLES[name]
    model, x = net(middle, outputs), torch.rand(1, 3, 24, 16, generator=torch.Generator().manual_seed(1))
    expected = copy.deepcopy(model).double()(x.double()).detach()
    half = copy.deepcopy(model).to(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error", PrecisionWarning)
        afterwards, before = apply(model, [pass_], x), apply(half, [pass_], x.to(dtype))
    assert afterwards.diffs[0].edits
    assert all(verdict.holds for verdict in (*afterwards.verdicts, *before.verdicts))
    limit = 2 * off(half, x.to(dtype), expected)
    assert off(afterwards.model.eval().to(dtype), x.to(dtype), expected) < limit
    assert off(before.model.eval(), x.to(dtype), expected) < limit


class Sums(nn.Module):
    """A mean of squares that sums first."""

    def forward(self, x: Tensor) -> Tensor:
        return (x * x).sum(1, keepdim=True) * (1 / x.shape[1])


class Means(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x * x).mean(1, keepdim=True)


def test_what_overflows_is_named() -> None:
    with pytest.warns(PrecisionWarning, match="some-pass: norm overflows .* in float16"):
        warn_of_precision("some-pass", "norm", Means(), Sums(), 48, torch.float16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_where_nothing_overflows_there_is_no_warning(dtype: torch.dtype) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_precision("some-pass", "norm", Means(), Sums(), 48, dtype)
