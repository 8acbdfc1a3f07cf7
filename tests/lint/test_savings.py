"""What a pass would save is what its diff says after the rewrite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import pytest
import torch
from hypothesis import given
from torch import nn

from architectures import NAFNet, UNet
from mofa_compiler import capture, weights
from mofa_compiler.analysis.anatomy import infer
from mofa_compiler.analysis.layers import Layer
from mofa_compiler.analysis.network import Network
from mofa_compiler.base.errors import RoadmapError
from mofa_compiler.lint.savings import Change, lowered, savings
from mofa_compiler.nn.partial_conv import PConv2d
from mofa_compiler.passes import (
    DecoupleDownsampling,
    DecoupleUpsampling,
    LowerPConv,
    LowerShuffle,
    MergeLinear,
    NarrowPortion,
    PConvToPDWConv,
    PointwiseFirst,
    RestoreKernels,
    SepConvToPConv,
    ShrinkKernels,
    WidenPortion,
)
from mofa_compiler.passes.lower_pconv import Form
from mofa_compiler.rewriting.engine import rewrite
from mofa_compiler.rewriting.graph_pass import GraphPass
from mofa_compiler.rewriting.pass_api import Match, Pass, Replacement
from mofa_compiler.rewriting.registry import available
from tests.nets import Plan, plans
from tests.raising import raising
from tests.rewrites import WHOLE, Net, chain, network
from tests.test_properties import ROADMAPS, build, drawn, roadmaps

PASSES = [kind() for kind in available().values() if not issubclass(kind, GraphPass)]
OTHERS = [
    DecoupleDownsampling(convolution="dense", pointwise_bias="drop"),
    DecoupleDownsampling(convolution="separable"),
    DecoupleUpsampling(convolution="dense", mode="nearest"),
    DecoupleUpsampling(convolution="separable", pointwise_bias="drop"),
    DecoupleUpsampling(portion="1/2"),
    LowerShuffle(kernel=5),
    NarrowPortion(where=("*",), portion="1/8"),
    PConvToPDWConv(threshold=0),
    PointwiseFirst(contraction=1, spatial=False),
    SepConvToPConv(portion="1/2", pointwise_bias="drop"),
    ShrinkKernels(size=1),
    *(LowerPConv(form=form) for form in get_args(Form)),
]


def assert_told(before: Network, pass_: Pass) -> Mapping[str, Change]:
    changes = savings(before, pass_)
    _, diff = rewrite(before, pass_)
    assert changes is not None
    told = Change(sum(c.parameters for c in changes.values()), sum(c.macs for c in changes.values()))
    assert told == Change(diff.after.parameters - diff.before.parameters, diff.after.macs - diff.before.macs)
    assert changes.keys() <= {edit.path for edit in diff.edits}
    return changes


@pytest.fixture(scope="module", params=WHOLE)
def networks(request: pytest.FixtureRequest) -> tuple[Network, Network]:
    """A model as it is, and with partial convolutions."""
    found = network(WHOLE[request.param]().eval(), 1, 3, 64, 64)
    return found, rewrite(found, SepConvToPConv())[0]


@pytest.mark.parametrize("pass_", [*PASSES, *OTHERS], ids=repr)
@pytest.mark.sample(8)
def test_every_pass(networks: tuple[Network, Network], pass_: Pass):
    assert_told(networks[SepConvToPConv.name in pass_.after], pass_)


@pytest.mark.filterwarnings("ignore::mofa_compiler.frontend.modes.CaptureWarning")
@drawn(8)
@given(plans, roadmaps)
def test_generated_networks(plan: Plan, name: str) -> None:
    program = capture(build(plan), plan.example(1, plan.sizes[0]))
    found = Network(program, infer(program))
    for pass_ in ROADMAPS[name]:
        if not isinstance(pass_, GraphPass):
            assert_told(found, pass_)
        found, _ = rewrite(found, pass_)


def test_neighbours_count_for_the_layer_that_caused_their_change():
    depthwise, pointwise = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 4, 1, bias=False)
    changes = assert_told(network(chain(depthwise, pointwise, channels=8)), SepConvToPConv(portion="1/2"))
    # 8·9 + 8 become 4·4·9 + 4, and what the others owe is a new bias of 4 behind; pixels: 32·32
    assert changes == {"1": Change(144 + 4 - 80 + 4, (144 - 72) * 1024)}
    changes = assert_told(network(chain(depthwise, pointwise, channels=8)), PointwiseFirst())
    assert changes == {"1": Change(32 + 4 * 9 + 4 - 80 - 32, (36 - 72) * 1024)}


def test_what_values_decide_is_asked_of_them():
    shuffled = chain(nn.Conv2d(8, 16, 1), nn.PixelShuffle(2), nn.Conv2d(4, 8, 3, padding=1))
    assert savings(network(shuffled), LowerShuffle()) == {}
    shuffled[1].bias.data.fill_(0.5)  # type: ignore[union-attr]
    assert savings(network(shuffled), LowerShuffle()) == {"1": Change(-12, 0, exact=True)}


@pytest.mark.parametrize("pass_", [SepConvToPConv(), DecoupleUpsampling(), DecoupleDownsampling()], ids=repr)
def test_nothing_is_changed_or_left_behind(pass_: Pass):
    """Neither weights nor random numbers, nor fits that are remembered without their values."""
    weights.upsampling_projection.cache_clear()
    found = network(UNet(width=4, depth=2, bilinear=True), 1, 3, 32, 32)
    state = {key: (tensor, tensor.clone()) for key, tensor in found.program.state().items()}
    rng, ids = torch.get_rng_state(), {id(node) for node in found.program.graph.nodes}
    savings(found, pass_)
    assert torch.equal(torch.get_rng_state(), rng)
    assert {id(node) for node in found.program.graph.nodes} == ids
    assert all(torch.equal(*state[key]) and state[key][0] is t for key, t in found.program.state().items())
    assert all(t.device.type == "cpu" for t in rewrite(found, pass_)[0].program.state().values())


def test_without_values_nothing_is_exact():
    found = network(chain(PConv2d(8, 2), nn.Conv2d(8, 8, 1)))
    for before, exact in ((found, True), (found.without_values, False)):
        _, diff = rewrite(before, WidenPortion(where=("*",)))
        assert [(edit.exact, edit.error is not None) for edit in diff.edits] == [(exact, exact)]


def test_without_values_sharing_stays():
    shared = nn.Conv2d(8, 8, 3, padding=1)
    other = nn.Conv2d(8, 8, 3, padding=1)
    other.weight = shared.weight
    found = network(Net(lambda net, x: net.c(net.b(net.a(x))), a=shared, b=other, c=shared))
    assert found.without_values.totals == found.totals
    assert [layer.tied for layer in found.without_values.layers.values()] == [True, True]


def test_without_values_keeps_what_partial_convolutions_stand_for():
    found, _ = rewrite(network(chain(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 8, 1))), SepConvToPConv())
    ideal = found.without_values.layers["1"].ideal
    assert ideal is not None
    assert ideal.weight.is_meta
    widened, _ = rewrite(found, WidenPortion(where=("*",)))
    assert savings(widened, RestoreKernels()) == {"1": Change(0, 0)}


@dataclass(frozen=True)
class Pruned(Pass):
    """Another package's: it looks at values."""

    name = "pruned"

    def match(self, layer: Layer, network: Network) -> Match:
        return Match()

    def build(self, layer: Layer, modules: Mapping[str, Any]) -> Replacement:
        old = modules[layer.path]
        kept = [channel for channel, kernel in enumerate(old.weight) if float(kernel.abs().sum()) > 0]
        return Replacement(nn.Conv2d(old.in_channels, len(kept), old.kernel_size, padding=old.padding))


def test_another_packages_pass_that_needs_values_has_no_figures():
    found = network(chain(nn.Conv2d(8, 8, 3, padding=1)))
    assert savings(found, Pruned()) is None
    rewrite(found, Pruned())  # though it works


def test_a_pass_that_looks_at_no_layer_is_carried_out():
    found = network(nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)).eval())
    assert savings(found, MergeLinear()) is None
    diff = lowered(found, MergeLinear())
    assert diff.after.parameters - diff.before.parameters == -16
    assert diff.exact


def test_a_pass_that_makes_no_sense_is_refused():
    with raising(RoadmapError, "unknown-name", "where='encodr 3'"):
        savings(network(NAFNet(width=8), 1, 3, 64, 64), WidenPortion(where=("encodr 3",)))
