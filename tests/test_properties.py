"""What holds for any U-Net-like network, on generated ones. HYPOTHESIS_PROFILE=nightly draws 500 for each property.

A failing example prints its `Plan`, at night the shortest that fails; it belongs into `test_regressions.py`, under the
name of what was wrong.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import operator
import sys
import tempfile
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

import mofa_compiler
from mofa_compiler import Roadmap, apply, capture
from mofa_compiler.analysis.anatomy import infer
from mofa_compiler.analysis.network import Network
from mofa_compiler.base.errors import CaptureError
from mofa_compiler.frontend.modes import CaptureWarning
from mofa_compiler.passes import (
    ChannelsLast,
    DecoupleDownsampling,
    DecoupleUpsampling,
    LowerGates,
    LowerLayerNorm,
    LowerShuffle,
    MergeLinear,
    NarrowHidden,
    NarrowPortion,
    RestoreKernels,
    SepConvToPConv,
    WidenPortion,
)
from mofa_compiler.rewriting.engine import rewrite
from mofa_compiler.rewriting.registry import available
from mofa_compiler.rewriting.roadmap import presets
from tests.nets import GeneratedUNet, Plan, plans
from tests.raising import raising

NIGHTLY = settings().max_examples >= 500
QUICK = settings().max_examples < 5
BACKEND = "aot_eager" if NIGHTLY else "eager"
GUARD = "capture it again at this"

pytestmark = [
    pytest.mark.filterwarnings("ignore::mofa_compiler.frontend.modes.CaptureWarning"),
    pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad"),
]


def _roadmaps() -> dict[str, Roadmap]:
    """The presets, every pass alone or behind those that it builds on, and some with other options."""
    found = {name: Roadmap.load(name) for name in presets()}
    *others, last = found["mofa"].passes
    found["everything"] = Roadmap([*others, DecoupleDownsampling(), last])
    for name, kind in available().items():
        found[name] = Roadmap([kind()])
        if SepConvToPConv.name in kind.after:
            found[f"{name} behind"] = Roadmap([SepConvToPConv(), kind()])
    found["lowered"] = Roadmap([LowerLayerNorm(), MergeLinear(), LowerGates(), LowerShuffle(kernel=5), ChannelsLast()])
    found["dropped"] = Roadmap([SepConvToPConv(portion="1/2", pointwise_bias="drop", kinds=("depthwise",))])
    found["restored"] = Roadmap([SepConvToPConv(portion="1/8"), WidenPortion(where="cheap"), RestoreKernels()])
    found["narrowed"] = Roadmap([SepConvToPConv(portion="1/2"), NarrowPortion(where="*", portion="1/8")])
    found["hidden"] = Roadmap([NarrowHidden(keep="1/2", multiple=1), SepConvToPConv()])
    found["dense"] = Roadmap(
        [
            DecoupleUpsampling(mode="nearest", convolution="dense", pointwise_bias="drop"),
            DecoupleDownsampling(convolution="dense"),
        ]
    )
    found["separable"] = Roadmap(
        [DecoupleUpsampling(convolution="separable"), DecoupleDownsampling(convolution="separable"), SepConvToPConv()]
    )
    return found


ROADMAPS = _roadmaps()
roadmaps = st.sampled_from(sorted(ROADMAPS))


def drawn(examples: int) -> Callable[[Any], Any]:
    """As many examples as this property has time for, none shrunk; few if quick, at night all of the profile's."""
    if NIGHTLY:
        return settings()
    most = settings().max_examples if QUICK else examples
    return settings(max_examples=min(examples, most), phases=[Phase.explicit, Phase.reuse, Phase.generate])


def build(plan: Plan, dtype: torch.dtype = torch.float32) -> GeneratedUNet:
    torch.manual_seed(0)
    return GeneratedUNet(plan).to(dtype).train(plan.training)


def tensors(output: Any) -> list[Tensor]:
    """All that a network returns, in order."""
    if dataclasses.is_dataclass(output):
        output = list(vars(output).values())
    return pytree.tree_leaves(output)


def run(module: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """The outputs of a copy, so that running statistics stay, for the same random numbers."""
    torch.manual_seed(1)
    return tensors(copy.deepcopy(module)(*inputs))


def run_or_guard(module: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor] | None:
    """The outputs, or None where a decision on sizes would come out otherwise."""
    try:
        return run(module, inputs)
    except RuntimeError as error:
        if GUARD not in str(error):
            raise
        return None


def assert_same(got: list[Tensor], expected: list[Tensor], tolerance: float = 0) -> None:
    assert [t.shape for t in got] == [t.shape for t in expected]
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def without_gradient(module: nn.Module, inputs: tuple[Tensor, ...]) -> set[str]:
    """Parameters that no gradient reaches in training."""
    trained = copy.deepcopy(module).train()
    functools.reduce(operator.add, (t.square().mean() for t in tensors(trained(*inputs)))).backward()
    return {name for name, p in trained.named_parameters() if p.requires_grad and p.grad is None}


@drawn(12)
@given(plans)
def test_capture_equals_eager_at_two_sizes(plan: Plan) -> None:
    model = build(plan)
    first, second = (plan.example(batch, size) for batch, size in zip((2, 1), plan.sizes, strict=True))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", CaptureWarning)
        program = capture(model, first)
    assert program.opaque == {}
    assert set(program.graph_module.state_dict()) == set(model.state_dict())
    assert_same(run(program.graph_module, first), run(model, first))
    got, expected = run_or_guard(program.graph_module, second), run(model, second)
    if got is None:
        got = run(capture(model, second).graph_module, second)
    assert_same(got, expected)
    left_out = plan.stochastic and not plan.training  # in training it then keeps all, as without dropout
    if not left_out and not any(issubclass(warning.category, CaptureWarning) for warning in warned):
        switched = [copy.deepcopy(m).train(not plan.training) for m in (program.graph_module, model)]
        assert_same(run(switched[0], first), run(switched[1], first))


def _world() -> dict[tuple[str, str], int]:
    """What the names of torch, and of the modules that define the nets, stand for."""
    homes = [torch, F, nn, torch.jit, torch.Tensor, nn.Module, torch.autograd.Function, torch.utils.checkpoint]
    homes += [module for name, module in sys.modules.items() if name.startswith("tests.nets")]
    return {(repr(home), name): id(value) for home in homes for name, value in vars(home).items()}


def _state(model: nn.Module) -> dict[str, Any]:
    """All that a model's modules hold: attributes by identity, dicts by what is in them, tensors by value."""

    def held(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: held(item) for name, item in value.items()}
        if isinstance(value, Tensor):
            return id(value), value._version, value.detach().clone().flatten().tolist()
        return sorted(value) if isinstance(value, set) else id(value)

    return {path: held(vars(module)) for path, module in model.named_modules(remove_duplicate=False)}


@drawn(6)
@given(plans, roadmaps)
def test_nothing_is_left_behind(plan: Plan, name: str) -> None:
    model, example = build(plan), plan.example(1, plan.sizes[0])
    unfit = (torch.rand(1, 7, *plan.sizes[0]), *example[1:])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        capture(model, example)  # what torch imports on first use stays imported
    state, world, modules, rng = _state(model), _world(), dict(sys.modules), torch.get_rng_state()
    capture(model, example)
    apply(model, ROADMAPS[name], example)
    with raising(CaptureError, "wrong-input", "1x7"):
        capture(model, unfit)
    assert torch.equal(torch.get_rng_state(), rng)
    assert _state(model) == state
    assert {key: value for key, value in _world().items() if key in world} == world
    assert {key: module for key, module in sys.modules.items() if key in modules} == modules
    assert all(isinstance(torch.__dict__[n], (types.ModuleType, type)) for h, n in _world().keys() - world.keys())


@pytest.mark.slow
@drawn(12)
@given(plans, roadmaps)
def test_every_roadmap_keeps_shapes_and_promises(plan: Plan, name: str) -> None:
    """Pass by pass: shapes at two sizes, finite values, exact edits exact, gradients, and the totals of the diff."""
    model = build(plan, torch.float64)
    inputs = [plan.example(batch, size, torch.float64) for batch, size in zip((1, 2), plan.sizes, strict=True)]
    program = capture(model, inputs[0])
    network = Network(program, infer(program))
    expected = [run_or_guard(network.program.graph_module.eval(), x) for x in inputs]
    dead = without_gradient(network.program.graph_module, inputs[0])
    for pass_ in ROADMAPS[name]:
        network, diff = rewrite(network, pass_)
        assert all(edit.error is not None and edit.error < 1e-9 for edit in diff.edits if edit.exact)
        assert diff.after.parameters - diff.before.parameters == sum(edit.parameters for edit in diff.edits)
        assert diff.after.macs - diff.before.macs == sum(edit.macs for edit in diff.edits)
        got = [run_or_guard(network.program.graph_module.eval(), x) for x in inputs]
        for was, now in zip(expected, got, strict=True):
            assert (was is None) == (now is None)
            if was is None or now is None:
                continue
            assert [t.shape for t in now] == [t.shape for t in was]
            assert all(t.isfinite().all() for t in now)
            if diff.exact:
                assert_same(now, was, 1e-9)
        expected = got
        assert without_gradient(network.program.graph_module, inputs[0]) <= dead
    assert network.totals.parameters == sum(p.numel() for p in network.program.graph_module.parameters())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        copy.deepcopy(network.program.graph_module)(*inputs[0])
    assert 2 * network.totals.macs == counter.get_total_flops()


@drawn(6)
@given(plans, roadmaps)
def test_applying_twice_gives_the_same(plan: Plan, name: str) -> None:
    model, example = build(plan), plan.example(1, plan.sizes[0])
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    one, two = apply(model, ROADMAPS[name], example), apply(model, ROADMAPS[name], example)
    assert one.diffs == two.diffs
    assert one.model.code == two.model.code
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    state = two.model.state_dict()
    assert all(torch.equal(tensor, state[key]) for key, tensor in one.model.state_dict().items())
    assert one.keymap.keys() == before.keys()
    assert {key for fate in one.keymap.values() for key in fate.keys} <= state.keys()
    assert all(verdict.holds for verdict in one.verdicts)


@drawn(6)
@given(plans, roadmaps)
def test_bundle_computes_the_same(plan: Plan, name: str) -> None:
    inputs = [plan.example(batch, size) for batch, size in zip((1, 2), plan.sizes, strict=True)]
    result = apply(build(plan), ROADMAPS[name], inputs[0])
    with tempfile.TemporaryDirectory() as folder:
        loaded = mofa_compiler.load(result.save(Path(folder) / "bundle"))
    assert set(loaded.state_dict()) == set(result.model.state_dict())
    result.model.eval()
    for x in inputs:
        expected, got = run_or_guard(result.model, x), run_or_guard(loaded, x)
        assert (expected is None) == (got is None)
        if expected is not None and got is not None:
            assert_same(got, expected)


@drawn(3)
@given(plans, roadmaps)
def test_compiled_computes_the_same(plan: Plan, name: str) -> None:
    torch._dynamo.reset()
    inputs = plan.example(1, plan.sizes[0])
    model = apply(build(plan).eval(), ROADMAPS[name], inputs).model
    expected = run(model, inputs)
    torch.manual_seed(1)
    with torch.no_grad():
        assert_same(tensors(torch.compile(model, backend=BACKEND)(*inputs)), expected, 1e-5)
