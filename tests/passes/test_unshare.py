from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mofa_compiler import Roadmap, apply, load, replay, verify
from mofa_compiler.analysis.layers import signature
from mofa_compiler.calibration import Calibration
from mofa_compiler.passes import SepConvToPConv, Unshare
from mofa_compiler.rewriting.engine import rewrite
from tests.calibration.small import images, trained_like
from tests.rewrites import Net, assert_rewrites, assert_same_outputs, network


def block() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))


def repeated(times: int = 3, **layers: nn.Module) -> nn.Module:
    """A block that is called several times between an input and an output convolution."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        x = m.stem(x)  # type: ignore[operator]
        for _ in range(times):
            x = m.block(x)  # type: ignore[operator]
        return m.head(x)  # type: ignore[operator, no-any-return]

    layers = {"stem": nn.Conv2d(3, 8, 3, padding=1), "head": nn.Conv2d(8, 3, 3, padding=1), "block": block(), **layers}
    return trained_like(Net(forward, **layers)).eval()


def test_every_call_gets_a_copy():
    conv, norm = "Conv2d(8→8, k3, bias)", signature(nn.BatchNorm2d(8))
    after = {
        "block.0.0": conv,
        "block.0.1": conv,
        "block.1.0": norm,
        "block.1.1": norm,
        "block.0": None,
        "block.1": None,
    }
    _, diff = assert_rewrites(Unshare(), repeated(2), after, shape=(1, 3, 16, 16))
    assert {edit.path: (edit.fate, edit.exact, edit.parameters, edit.macs) for edit in diff.edits} == {
        "block.0": ("exact", True, 584, 0),
        "block.1": ("exact", True, 16, 0),
    }


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=7))
def test_it_computes_the_same_whatever_is_called_when(order: list[str]):
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        for name in order:
            x = x + F.relu(getattr(m, name)(x))
        return x

    model = Net(forward, a=nn.Conv2d(4, 4, 3, padding=1), b=nn.GroupNorm(2, 4), c=nn.ConvTranspose2d(4, 4, 1))
    before = network(trained_like(model).double(), 1, 4, 9, 10)
    after, diff = rewrite(before, Unshare())
    assert_same_outputs(model, after, (1, 4, 9, 10))
    called = [str(node.target) for node in after.program.graph.nodes if node.op == "call_module"]
    assert len(called) == len(set(called)) == len(order)
    assert {edit.path for edit in diff.edits} == {name for name in order if order.count(name) > 1}
    assert after.totals.macs == before.totals.macs


def test_only_the_layers_that_are_named():
    _, diff = rewrite(network(repeated(), 1, 3, 16, 16), Unshare(layers=("block.1",)))
    assert [edit.path for edit in diff.edits] == ["block.1"]


def test_tied_and_hooked_layers_are_left_alone():
    tied, hooked = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
    other = nn.Conv2d(8, 8, 1)
    other.weight = tied.weight
    hooked.register_forward_hook(lambda *_: None)
    model = repeated(block=nn.Sequential(tied, hooked, other))
    _, diff = rewrite(network(model, 1, 3, 16, 16), Unshare())
    assert {skip.path: skip.code for skip in diff.skips} == {"block.0": "tied", "block.1": "altered", "block.2": "tied"}
    assert not diff.edits


def test_a_key_becomes_several():
    result = apply(repeated(2), [Unshare()], torch.rand(1, 3, 16, 16))
    assert result.keymap["block.0.weight"].keys == ("block.0.0.weight", "block.0.1.weight")
    assert result.keymap["block.1.running_var"].keys == ("block.1.0.running_var", "block.1.1.running_var")
    assert result.keymap["stem.weight"].fate == "kept"
    further = apply(repeated(2), [Unshare(), SepConvToPConv()], torch.rand(1, 3, 16, 16))
    keys = further.keymap["block.0.weight"].keys
    assert {"block.0.0.pconv.conv.weight", "block.0.1.pointwise.weight"} <= set(keys)


def test_it_comes_first_in_a_roadmap():
    assert Roadmap([SepConvToPConv(), Unshare()]).passes == (Unshare(), SepConvToPConv())


def test_what_has_two_names_stays_one():
    block_ = block()
    _, diff = rewrite(network(repeated(block=block_, alias=block_[0]), 1, 3, 16, 16), Unshare())
    assert {skip.path: skip.code for skip in diff.skips}["block.0"] == "tied"
    assert {edit.path for edit in diff.edits} == {"block.1"}


def test_what_shares_nothing_is_rewritten_as_without_it():
    model = repeated(1)
    result = apply(model, [Unshare(), SepConvToPConv()], torch.rand(1, 3, 16, 16))
    assert [pass_.name for pass_ in result.roadmap] == ["sepconv-to-pconv"]
    assert [step.name for step in result.steps] == ["sepconv-to-pconv"]


@pytest.mark.parametrize("calibrated", [False, True])
def test_a_bundle_holds_verifies_and_replays(tmp_path: Path, calibrated: bool):
    model, x = repeated(), images(4, 2)
    result = apply(model, "mofa", x[0], Calibration(x, tuning=0) if calibrated else None)
    assert result.roadmap.passes[0] == Unshare()
    assert all(verdict.holds for verdict in result.verdicts)
    folder = result.save(tmp_path / "bundle")
    assert verify(folder, model).problems == ()
    with torch.no_grad():
        torch.testing.assert_close(load(folder).eval()(x[0]), result.model.eval()(x[0]))
    again = replay(folder, model)
    assert again.channel_orders == result.channel_orders
    assert again.model.state_dict().keys() == result.model.state_dict().keys()


def test_calls_are_fitted_apart():
    """What each call is fed is different, so that weights of its own fit each of them better."""
    model, x = repeated(block=nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.SiLU())), images(6, 2)
    passes = [Unshare(), SepConvToPConv()]
    shared, apart = (apply(model, some, x[0], Calibration(x, tuning=0)) for some in (passes[1:], passes))
    fresh = torch.cat(images(9, 2)[6:])
    with torch.no_grad():
        expected = copy.deepcopy(model)(fresh)
        errors = [float((result.model.eval()(fresh) - expected).norm()) for result in (shared, apart)]
    assert errors[1] < errors[0]
    assert apart.after.macs == shared.after.macs
    assert apart.after.parameters > shared.after.parameters


@pytest.mark.slow
def test_a_decided_roadmap_names_the_copies():
    """What is decided of one call is none of the others' business."""
    roadmap = Roadmap([Unshare(), SepConvToPConv()]).with_target("eager", keep_if="always")
    result = apply(repeated(2), roadmap, torch.rand(1, 3, 16, 16))
    assert [pass_.name for pass_ in result.roadmap][:2] == ["unshare", "sepconv-to-pconv"]
    assert {"block.0.0", "block.0.1"} <= set(result.roadmap.passes[1].layers)
    assert any(key.startswith("block.0.1.pconv.") for key in result.model.state_dict())
