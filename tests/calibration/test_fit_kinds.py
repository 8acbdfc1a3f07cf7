"""Every kind of fit finds weights that are known: those of the original, from others."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mofa_compiler.calibration.plan as plan_module
from mofa_compiler import apply
from mofa_compiler.analysis.network import Network
from mofa_compiler.calibration import Calibrated, Calibration, calibrate
from mofa_compiler.calibration.fit_kinds import NormFit
from mofa_compiler.nn.partial_conv import PConv2d, PDWConv2d
from mofa_compiler.passes import DecoupleDownsampling, DecoupleUpsampling, PConvToPDWConv, SepConvToPConv
from mofa_compiler.rewriting.engine import rewrite
from mofa_compiler.rewriting.pass_api import Pass
from tests.calibration.small import Between, conv, images, network, trained_like


def fitted(model: nn.Module, change: Callable[[nn.Module], None], *paths: str, tuning: int = 0) -> Calibrated:
    """The model against itself with some layers changed, which fits are to change back."""
    batches = images(6, 2)
    original = network(trained_like(model).eval(), batches[0])
    modules = dict(original.program.modules)
    for path in paths:
        modules[path] = copy.deepcopy(modules[path])
        with torch.no_grad():
            change(modules[path])
    changed = Network(replace(original.program, modules=modules), original.anatomy)
    settings = Calibration(batches, order=False, tuning=tuning)
    return calibrate(settings, [original, changed], lambda _: [], lambda *_: None)


def disturb(module: nn.Module) -> None:
    """Other weights, near enough to be of use."""
    generator = torch.Generator().manual_seed(3)
    for parameter in module.parameters():
        size = max(float(parameter.std(correction=0)), 0.1)
        parameter.add_(0.3 * size * torch.randn(parameter.shape, generator=generator))


def disturb_kernel(module: nn.Module) -> None:
    assert isinstance(module.weight, nn.Parameter)
    module.weight.mul_(1.3)


def depthwise(channels: int) -> nn.Conv2d:
    return conv(channels, channels, 3, groups=channels)


def summed(m: Between, x: Tensor) -> Tensor:
    return F.relu(m.b(x) + x)


def sized_up(m: Between, x: Tensor) -> Tensor:
    return F.silu(F.interpolate(m.b(F.avg_pool2d(x, 2)), scale_factor=2, mode="bilinear"))


def repeated(m: Between, x: Tensor) -> Tensor:
    return F.silu(m.b(F.silu(m.b(F.silu(m.b(x))))))


def transposed(m: Between, x: Tensor) -> Tensor:
    return F.silu(m.b(F.avg_pool2d(x, 2)) + x)


KINDS: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...], Callable[[nn.Module], None]]] = {
    "convolution": (lambda: Between(lambda m, x: F.silu(m.b(x)), b=conv(8, 8, 3)), ("b",), disturb),
    "no bias": (lambda: Between(lambda m, x: m.b(x).sin(), b=conv(8, 8, 3, bias=False)), ("b",), disturb),
    "dilated": (
        lambda: Between(lambda m, x: m.b(x).sin(), b=nn.Conv2d(8, 8, 3, padding="same", dilation=2)),
        ("b",),
        disturb,
    ),
    "strided": (lambda: Between(lambda m, x: m.b(x).sin(), b=conv(8, 8, 3, stride=2)), ("b",), disturb),
    "reflected": (lambda: Between(lambda m, x: m.b(x).sin(), b=conv(8, 8, 3, padding_mode="reflect")), ("b",), disturb),
    "pointwise": (lambda: Between(lambda m, x: F.silu(m.b(x)), b=conv(8, 8)), ("b",), disturb),
    "in front of a ReLU": (lambda: Between(lambda m, x: F.relu(m.b(x)), b=conv(8, 8, 3)), ("b",), disturb),
    "what is added is known": (lambda: Between(summed, b=conv(8, 8, 3)), ("b",), disturb),
    "through an interpolation": (lambda: Between(sized_up, b=conv(8, 8, 3)), ("b",), disturb),
    "depthwise": (lambda: Between(lambda m, x: F.silu(m.b(x)), b=depthwise(8)), ("b",), disturb),
    "PDWConv2d alone": (lambda: Between(lambda m, x: m.b(x).sin(), b=PDWConv2d(8, 4, bias=True)), ("b",), disturb),
    "PConv2d alone": (lambda: Between(lambda m, x: m.b(x).sin(), b=PConv2d(8, 4, bias=True)), ("b",), disturb),
    "PConv2d and pointwise": (
        lambda: Between(lambda m, x: m.c(m.b(x)).sin(), b=PConv2d(8, 4), c=conv(8, 8)),
        ("b", "c"),
        disturb,
    ),
    "transposed": (lambda: Between(transposed, b=nn.ConvTranspose2d(8, 8, 2, 2)), ("b",), disturb_kernel),
    "shared": (lambda: Between(repeated, b=conv(8, 8, 3)), ("b",), disturb),
    "batch norm": (lambda: Between(lambda m, x: m.b(x).sin(), b=nn.BatchNorm2d(8)), ("b",), disturb),
    "group norm": (lambda: Between(lambda m, x: m.b(x).sin(), b=nn.GroupNorm(2, 8)), ("b",), disturb),
    "instance norm": (
        lambda: Between(lambda m, x: m.b(x).sin(), b=nn.InstanceNorm2d(8, affine=True)),
        ("b",),
        disturb,
    ),
}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.sample(5)
def test_weights_are_found_again(name: str) -> None:
    make, paths, change = KINDS[name]
    result = fitted(make(), change, *paths)
    before, after, *others = result.stages
    assert (before.name, after.name) == ("inherited", "fitted")
    assert before.error > 0.02
    assert after.error < before.error / 10
    assert not any(stage.kept for stage in others)  # without what is called several times
    assert set(paths) <= {edit.path for edit in result.diff.edits}


def test_a_norm_takes_up_what_a_layer_before_it_cannot() -> None:
    """A grouped convolution is not fitted; its norm's running statistics become those of what comes in now."""
    model = Between(lambda m, x: F.silu(m.n(m.b(x))), b=conv(8, 8, 3, groups=2), n=nn.BatchNorm2d(8))

    def scaled(module: nn.Module) -> None:
        for parameter in module.parameters():
            parameter.mul_(1.7)

    result = fitted(model, scaled, "b")
    assert result.stages[1].error < result.stages[0].error / 90  # statistics of some images, seen on another one
    assert {skip.path: skip.code for skip in result.diff.skips} == {"b": "grouped"}
    final = result.networks[-1].program
    inputs: list[Tensor] = []
    handle = final.modules["b"].register_forward_hook(lambda module, given, output: inputs.append(output))
    with torch.no_grad():
        for x in images(6, 2):
            final.graph_module.eval()(x)
    handle.remove()
    seen = torch.cat(inputs)[:-1]  # the last one is held out
    norm = final.modules["n"]
    torch.testing.assert_close(norm.running_mean, seen.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var, seen.var((0, 2, 3)), rtol=1e-3, atol=1e-6)


def test_values_that_are_not_finite_leave_a_norm_as_it_is() -> None:
    norm = nn.BatchNorm2d(2).eval()
    state = copy.deepcopy(norm.state_dict())
    fit = NormFit("n", norm, 2, [])
    with torch.no_grad():
        features = fit.features(torch.full((1, 2, 4, 4), float("inf")))
    fit._error = float(features.sum())
    gain = fit.update(last=True)
    assert "not finite" in str(gain)
    assert all(torch.equal(tensor, state[key]) for key, tensor in norm.state_dict().items())


def test_one_parameter_is_added_to_all_images() -> None:
    model = Between(lambda m, x: F.relu(m.b(x) + m.w), b=conv(8, 8, 3), w=nn.Parameter(torch.rand(1, 8, 16, 16)))
    batches = images(4, 3)
    original = network(trained_like(model).eval(), batches[0][:1])
    modules = {**original.program.modules, "b": copy.deepcopy(original.program.modules["b"])}
    with torch.no_grad():
        disturb(modules["b"])
    changed = Network(replace(original.program, modules=modules), original.anatomy)
    settings = Calibration(batches, order=False, tuning=0)
    result = calibrate(settings, [original, changed], lambda _: [], lambda *_: None)
    assert result.stages[1].error < result.stages[0].error / 10


def separable(*between: nn.Module) -> nn.Module:
    return nn.Sequential(conv(3, 8, 3), depthwise(8), *between, conv(8, 8), nn.SiLU(), conv(8, 3, 3))


def gated(m: Between, x: Tensor) -> Tensor:
    a, b = m.d(m.b(x)).chunk(2, 1)
    return m.c(a * b)


def shrunk(m: Between, x: Tensor) -> Tensor:
    return m.u(F.max_pool2d(F.silu(m.b(x)), 2))


def halved(m: Between, x: Tensor) -> Tensor:
    return m.u(F.silu(m.b(x)))


SMALLER: dict[str, tuple[Callable[[], nn.Module], Iterable[Pass]]] = {
    "dense": (lambda: nn.Sequential(conv(3, 8, 3), conv(8, 8, 3), nn.SiLU(), conv(8, 3, 3)), [SepConvToPConv()]),
    "separable": (separable, [SepConvToPConv()]),
    "separable with a norm": (lambda: separable(nn.BatchNorm2d(8), nn.SiLU()), [SepConvToPConv()]),
    "separable, group norm": (lambda: separable(nn.GroupNorm(2, 8), nn.SiLU()), [SepConvToPConv()]),
    "PDWConv2d": (separable, [SepConvToPConv(), PConvToPDWConv(threshold=0)]),
    "gate": (lambda: Between(gated, b=conv(8, 16), d=depthwise(16), c=conv(8, 8)), [SepConvToPConv()]),
    "shared": (lambda: Between(repeated, b=conv(8, 8, 3)), [SepConvToPConv()]),
    "upsampling": (
        lambda: Between(shrunk, b=conv(8, 8, 3), u=nn.ConvTranspose2d(8, 8, 2, 2)),
        [DecoupleUpsampling(), SepConvToPConv()],
    ),
    "downsampling": (
        lambda: Between(
            lambda m, x: m.u(F.silu(m.b(x))), b=conv(8, 16, 3, stride=2), u=nn.ConvTranspose2d(16, 8, 2, 2)
        ),
        [DecoupleDownsampling()],
    ),
}


@pytest.mark.parametrize("name", SMALLER)
@pytest.mark.sample(2)
def test_rewritten_layers_come_nearer(name: str) -> None:
    make, roadmap = SMALLER[name]
    result = apply(trained_like(make()), list(roadmap), images(1)[0], Calibration(images(6, 2), order=False, tuning=0))
    errors = [verdict.accumulated for verdict in result.verdicts]
    assert errors[-1] < 0.97 * errors[-2]
    assert result.diffs[-1].options["kept"] == "fitted"
    notes = [edit.note for edit in result.diffs[-1].edits]
    assert all(note.startswith("fitted: ") for note in notes)


def test_the_layer_before_a_lone_partial_convolution_takes_up_its_loss() -> None:
    make, roadmap = SMALLER["gate"]
    result = apply(trained_like(make()), list(roadmap), images(1)[0], Calibration(images(6, 2), order=False, tuning=0))
    calibrated = {edit.path: edit for edit in result.diffs[-1].edits}
    assert {"b", "c"} <= calibrated.keys()
    assert result.keymap["b.weight"].fate == "calibrated"


def test_the_layer_before_a_lone_partial_convolution_is_fitted_once() -> None:
    """A second fit, to its own old output, would undo what it takes up for the layer behind."""
    make, roadmap = SMALLER["gate"]
    torch.manual_seed(0)
    model = trained_like(make()).eval()
    original = network(model, images(1)[0])
    changed, _ = rewrite(original, *roadmap)
    plan = plan_module.Planner(original.program, changed, changed.program).make()
    fitted = [path for step in plan.steps for path in step.fit.paths]
    assert sorted(fitted) == ["b", "c", "d", "last"]


@pytest.mark.parametrize("tuning", [0, 40])
def test_what_is_not_fitted_but_tuned_is_not_left_alone(tuning: int) -> None:
    model = Between(lambda m, x: F.silu(m.b(x)), b=conv(8, 8, 3, groups=2))
    diff = fitted(model, disturb, "b", tuning=tuning).diff
    calibrated = {edit.path: edit.note for edit in diff.edits}
    refused = {skip.path: skip.code for skip in diff.skips}
    assert ("b" in calibrated, refused) == ((True, {}) if tuning else (False, {"b": "grouped"}))
    assert "grouped" in calibrated.get("b", "grouped")


def test_layers_that_are_too_large_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "MOST_FEATURES", 7)
    settings = Calibration(images(2), order=False, tuning=0)
    result = apply(trained_like(separable()), [SepConvToPConv()], images(1)[0], settings)
    (skip,) = result.diffs[-1].skips
    assert skip.path == "2"
    assert skip.code == "too-large"
    assert result.diffs[-1].edits == ()
