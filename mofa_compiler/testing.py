"""Checks of what holds for every pass: for the tests of ours, and of those in other packages."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, fx, nn

from .analysis.anatomy import infer
from .analysis.layers import signature
from .analysis.network import Network
from .base.torch_state import own_randomness
from .frontend import capture
from .rewriting.engine import rewrite
from .rewriting.pass_api import Pass
from .rewriting.roadmap import Roadmap

Check = Callable[[Network, Pass], None]


def check_pass(pass_class: type[Pass]) -> None:
    """Check all that holds for every pass, on what `Pass.example` brings; the package that has it must be installed.

    Raises:
        AssertionError: it brings no example, rewrites nothing of it, or breaks a rule; the message says which.
    """
    example = pass_class.example()
    assert example is not None, f"{pass_class.name} brings no model that it has to rewrite: define its `example`"
    check_rewrites(*example)


def check_rewrites(pass_: Pass, model: nn.Module, image: Tensor, earlier: Iterable[Pass] = ()) -> None:
    """The same on this model, which takes one image (N, C, H, W) of any height, after passes that come earlier.

    Raises:
        AssertionError: nothing of it is rewritten, or a rule is broken.
    """
    program = capture(model.eval(), image)
    network = Network(program, infer(program))
    for one in earlier:
        network, _ = rewrite(network, one)
    _, diff = rewrite(network, pass_)
    reasons = "; ".join(f"{skip.path} {skip.reason}" for skip in diff.skips)
    assert diff.edits, f"{pass_.name} rewrites nothing of its example ({reasons or 'it matches no layer'})"
    for check in CHECKS:
        check(network, pass_)


def keeps_what_it_does_not_edit(before: Network, pass_: Pass) -> None:
    """What it was given, tensors of layers without an edit and the output's shape stay; the output too, if exact."""
    state = {key: tensor.clone() for key, tensor in before.program.state().items()}
    was = _signatures(before)
    after, diff = rewrite(before, pass_)
    assert _signatures(before) == was, "the network that it was given was changed"
    for key, tensor in before.program.state().items():
        assert torch.equal(tensor, state[key]), f"{key} of the network that it was given was changed"
    touched = {edit.path for edit in diff.edits}
    for key, tensor in after.program.state().items():
        if not any(key.startswith(f"{path}.") for path in touched):
            assert tensor is before.program.state()[key], f"{key} changed without an edit"
    assert set(before.program.state()) == set(before.program.graph_module.state_dict())
    image = _image(before, larger=True)
    expected, got = _output(before, image), _output(after, image)
    assert got.shape == expected.shape, f"the output of {tuple(image.shape)} has another shape"
    assert got.isfinite().all(), "the output is not finite"
    if diff.exact:
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def totals_are_those_of_its_edits(before: Network, pass_: Pass) -> None:
    """Parameters and MACs change by what the edits say."""
    _, diff = rewrite(before, pass_)
    assert diff.after.parameters - diff.before.parameters == sum(edit.parameters for edit in diff.edits)
    assert diff.after.macs - diff.before.macs == sum(edit.macs for edit in diff.edits)


def leaves_what_it_made(before: Network, pass_: Pass) -> None:
    """A second run does not rewrite what the first one made."""
    once, first = rewrite(before, pass_)
    _, second = rewrite(once, pass_)
    made = {edit.path for edit in first.rewritten}
    again = [edit.path for edit in second.rewritten if any(f"{edit.path}.".startswith(f"{path}.") for path in made)]
    assert not again, f"a second run rewrites what the first made: {', '.join(again)}"


def makes_the_same_twice(before: Network, pass_: Pass) -> None:
    """Two runs on the same network agree, to the bit."""
    with own_randomness(seed=1):
        one, first = rewrite(before, pass_)
    with own_randomness(seed=2):  # what is drawn shows
        two, second = rewrite(before, pass_)
    assert first == second, "two runs differ in their edits"
    for key, tensor in one.program.state().items():
        assert torch.equal(tensor, two.program.state()[key]), f"two runs differ in {key}"


def lets_gradients_through(before: Network, pass_: Pass) -> None:
    """Gradients reach every parameter, but for those that they did not reach before."""
    after, _ = rewrite(before, pass_)
    missed = _without_gradient(after) - _without_gradient(before)
    assert not missed, f"no gradient reaches {', '.join(sorted(missed))}"


def has_alternatives_of_its_own(before: Network, pass_: Pass) -> None:
    """What it offers to a search are passes of its name that a roadmap can hold."""
    layers = [*before.layers.values(), *before.functional]
    offered = {one for layer in layers for one in pass_.alternatives(layer, before, bounded=True)}
    for one in offered:
        assert one.name == pass_.name, f"an alternative of {pass_.name} is another pass, {one.name}"
        assert Roadmap.from_toml(Roadmap([one]).to_toml()).passes == (one,)


def has_documented_options(before: Network, pass_: Pass) -> None:
    """Roadmaps hold every option, and the docstring has a first line and explains each."""
    roadmap = Roadmap([pass_])
    assert Roadmap.from_toml(roadmap.to_toml()) == roadmap
    doc = type(pass_).__doc__ or ""
    assert len(doc.partition("\n")[0]) > 20, f"the docstring of {pass_.name} says too little in its first line"
    missed = [option for option in pass_.options if option != "layers" and f"{option}:" not in doc]
    assert not missed, f"the docstring of {pass_.name} does not explain {', '.join(missed)}"


CHECKS: tuple[Check, ...] = (
    keeps_what_it_does_not_edit,
    totals_are_those_of_its_edits,
    leaves_what_it_made,
    makes_the_same_twice,
    lets_gradients_through,
    has_alternatives_of_its_own,
    has_documented_options,
)


def _signatures(network: Network) -> dict[str, str]:
    modules = network.program.modules
    called = [str(node.target) for node in network.program.graph.nodes if node.op == "call_module"]
    return {path: signature(modules[path]) for path in called}


def _image(network: Network, *, larger: bool = False) -> Tensor:
    """A random image as the example is, or half as high again."""
    first: fx.Node = next(node for node in network.program.graph.nodes if node.op == "placeholder")
    count, channels, height, width = first.meta["val"].shape
    size = (count, channels, height * 3 // 2, width) if larger else (count + 1, channels, height, width)
    return torch.rand(size, dtype=first.meta["val"].dtype)


def _output(network: Network, image: Tensor) -> Tensor:
    with torch.no_grad():
        result: Tensor = network.program.graph_module.eval()(image)
    return result


def _without_gradient(network: Network) -> set[str]:
    module = copy.deepcopy(network.program.graph_module).train()
    module(_image(network)).square().mean().backward()
    return {name for name, parameter in module.named_parameters() if parameter.grad is None}
