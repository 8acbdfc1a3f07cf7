"""What holds for every pass, ours and any that is installed."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from architectures import PMRID, NAFNet, UNet
from mofa_compiler import Roadmap
from mofa_compiler.network import Network
from mofa_compiler.passes import SepConvToPConv
from mofa_compiler.registry import available
from mofa_compiler.rewriting import Pass, rewrite
from tests.rewrites import network, output, signatures

MODELS = {
    "pmrid": lambda: PMRID(),
    "nafnet": lambda: NAFNet(width=8),
    "unet": lambda: UNet(width=4, depth=2),
    "unet-bilinear": lambda: UNet(width=4, depth=2, bilinear=True),
}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> nn.Module:
    return MODELS[request.param]().eval()


@pytest.fixture(params=sorted(available()))
def pass_(request: pytest.FixtureRequest) -> Pass:
    return available()[request.param]()


def prepared(model: nn.Module, pass_: Pass) -> Network:
    """The model as the pass expects to find it: with partial convolutions, where it works on those."""
    found = network(model, 1, 3, 32, 32)
    return rewrite(found, SepConvToPConv())[0] if SepConvToPConv.name in pass_.after else found


def test_keeps_input_shapes_and_names(model: nn.Module, pass_: Pass):
    before = prepared(model, pass_)
    state = {key: tensor.clone() for key, tensor in before.program.state().items()}
    was = signatures(before)
    after, diff = rewrite(before, pass_)
    assert signatures(before) == was
    assert all(torch.equal(tensor, state[key]) for key, tensor in before.program.state().items())
    touched = {edit.path for edit in diff.edits}
    for key, tensor in after.program.state().items():
        if not any(key.startswith(f"{path}.") for path in touched):
            assert tensor is before.program.state()[key], f"{key} changed without an edit"
    assert set(before.program.state()) == set(before.program.graph_module.state_dict())
    x = torch.rand(1, 3, 48, 32)
    assert output(after, x).shape == output(before, x).shape
    assert output(after, x).isfinite().all()
    if diff.exact:
        torch.testing.assert_close(output(after, x), output(before, x), rtol=1e-4, atol=1e-5)


def test_totals_are_those_of_the_edits(model: nn.Module, pass_: Pass):
    _, diff = rewrite(prepared(model, pass_), pass_)
    assert diff.after.parameters - diff.before.parameters == sum(edit.parameters for edit in diff.edits)
    assert diff.after.macs - diff.before.macs == sum(edit.macs for edit in diff.edits)


def test_second_run_does_not_touch_what_the_first_made(model: nn.Module, pass_: Pass):
    once, first = rewrite(prepared(model, pass_), pass_)
    _again, second = rewrite(once, pass_)
    made = {edit.path for edit in first.rewritten}
    assert not [edit.path for edit in second.rewritten if any(f"{edit.path}.".startswith(f"{p}.") for p in made)]
    if not pass_.name.startswith("decouple-"):  # an enlarged tensor may have a convolution behind it, for the next run
        assert not second.edits


def test_two_runs_agree(model: nn.Module, pass_: Pass):
    before = prepared(model, pass_)
    one, two = rewrite(before, pass_), rewrite(before, pass_)
    assert one[1] == two[1]
    for key, tensor in one[0].program.state().items():
        assert torch.equal(tensor, two[0].program.state()[key])


def test_gradients_reach_every_parameter(model: nn.Module, pass_: Pass):
    rewritten, _ = rewrite(prepared(model, pass_), pass_)
    module = copy.deepcopy(rewritten.program.graph_module).train()
    module(torch.rand(2, 3, 32, 32)).square().mean().backward()
    assert [name for name, p in module.named_parameters() if p.grad is None] == []


def test_options_round_trip_and_are_documented(pass_: Pass):
    roadmap = Roadmap([pass_])
    assert Roadmap.from_toml(roadmap.to_toml()) == roadmap
    doc = type(pass_).__doc__ or ""
    assert len(doc.splitlines()[0]) > 20
    assert all(f"{option}:" in doc for option in pass_.options if option != "layers"), (
        "every option is explained in the docstring"
    )
