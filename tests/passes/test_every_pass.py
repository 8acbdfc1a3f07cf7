"""What holds for every pass, ours and any that is installed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from architectures import NAFNet
from mofa_compiler.analysis.network import Network
from mofa_compiler.nn.partial_conv import PConv2d
from mofa_compiler.passes import (
    ChannelsLast,
    DecoupleDownsampling,
    DecoupleUpsampling,
    LowerGates,
    LowerLayerNorm,
    LowerPConv,
    LowerShuffle,
    MergeLinear,
    NarrowPortion,
    PConvToPDWConv,
    PointwiseFirst,
    RestoreKernels,
    SepConvToPConv,
    ShrinkKernels,
    Unshare,
    WidenPortion,
)
from mofa_compiler.rewriting.engine import rewrite
from mofa_compiler.rewriting.pass_api import Pass
from mofa_compiler.rewriting.registry import available
from mofa_compiler.testing import CHECKS, Check, check_pass, check_rewrites, has_documented_options
from tests.rewrites import WHOLE, chain, network


class Example(NamedTuple):
    """A pass and a model of which it has to rewrite something, after passes that come earlier."""

    pass_: Pass
    model: Callable[[], nn.Module]
    earlier: tuple[Pass, ...] = ()


def partial() -> nn.Module:
    return chain(nn.Conv2d(8, 8, 1), PConv2d(8, 4), nn.Conv2d(8, 8, 1))


def depthwise(size: int = 3, outputs: int = 8) -> nn.Module:
    return chain(nn.Conv2d(8, 8, size, padding=size // 2, groups=8), nn.Conv2d(8, outputs, 1))


class Repeated(nn.Module):
    """A block that is called twice."""

    def __init__(self, channels: int):
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.block(self.block(x))
        return result


def shuffled() -> nn.Module:
    convolution = nn.Conv2d(8, 32, 1, bias=False)
    return nn.Sequential(nn.Conv2d(8, 8, 1), convolution, nn.PixelShuffle(2), nn.Conv2d(8, 8, 3, padding=1))


EVERYWHERE = ("*",)
WIDENED = (SepConvToPConv(), WidenPortion(where=EVERYWHERE))
EXAMPLES = [
    Example(ChannelsLast(), lambda: chain(nn.ReLU())),
    Example(DecoupleDownsampling(), lambda: chain(nn.Conv2d(8, 8, 3, 2, 1))),
    Example(DecoupleUpsampling(), lambda: chain(nn.ConvTranspose2d(8, 8, 2, 2))),
    Example(LowerGates(), lambda: NAFNet(img_channel=8, width=4)),
    Example(LowerLayerNorm(), lambda: NAFNet(img_channel=8, width=4)),
    Example(LowerPConv(), partial),
    Example(LowerShuffle(), shuffled),
    Example(MergeLinear(), lambda: chain(nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1))),
    Example(NarrowPortion(where=EVERYWHERE), partial),
    Example(PConvToPDWConv(threshold=4), partial),
    Example(PointwiseFirst(), lambda: depthwise(outputs=4)),
    Example(RestoreKernels(), depthwise, WIDENED),
    Example(SepConvToPConv(), depthwise),
    Example(ShrinkKernels(), lambda: depthwise(5)),
    Example(Unshare(), lambda: Repeated(8)),
    Example(WidenPortion(where=EVERYWHERE), depthwise, WIDENED[:1]),
]
"""One for each of ours; a pass of another package brings its own"""


@pytest.fixture(params=sorted(available()))
def pass_(request: pytest.FixtureRequest) -> Pass:
    return available()[request.param]()


@functools.cache
def prepared(model: str, *, partial: bool) -> Network:
    """A model as passes expect to find it, with partial convolutions or without; none of them modifies it."""
    if partial:
        return rewrite(prepared(model, partial=False), SepConvToPConv())[0]
    return network(WHOLE[model]().eval(), 1, 3, 32, 32)


@pytest.fixture(params=WHOLE)
def found(request: pytest.FixtureRequest, pass_: Pass) -> Network:
    return prepared(request.param, partial=SepConvToPConv.name in pass_.after)


@pytest.mark.parametrize("name", sorted(available()))
def test_rewrites_its_example(name: str):
    mine = [example for example in EXAMPLES if example.pass_.name == name]
    for example in mine:
        check_rewrites(example.pass_, example.model(), torch.rand(1, 8, 16, 16), example.earlier)
    if not mine:
        check_pass(available()[name])


ON_NETWORKS = [check for check in CHECKS if check is not has_documented_options]  # for which the example will do


@pytest.mark.parametrize("check", ON_NETWORKS, ids=lambda check: check.__name__)
@pytest.mark.sample(30)
def test_holds_on_whole_networks(found: Network, pass_: Pass, check: Check):
    check(found, pass_)


@pytest.mark.sample(10)
def test_a_second_run_finds_nothing(found: Network, pass_: Pass):
    once, _ = rewrite(found, pass_)
    _again, second = rewrite(once, pass_)
    # An enlarged tensor may have a convolution behind it, for the next run; and of the blocks left others add least.
    if not pass_.name.startswith(("decouple-", "drop-")):
        assert not second.edits
