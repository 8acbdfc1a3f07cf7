"""Fewer hidden channels: which layers get narrower, what stays, and what is lost."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from architectures import NAFNet
from mofa_compiler import Roadmap, apply
from mofa_compiler.base.errors import RoadmapError
from mofa_compiler.passes import NarrowHidden, SepConvToPConv
from mofa_compiler.rewriting import Pass
from tests.calibration.small import Between, conv, distance, run, trained_like
from tests.passes.hidden_blocks import NARROWED, SHAPE, depthwise, gated, plain, rows
from tests.raising import raising
from tests.rewrites import assert_rewrites, network
from tests.test_properties import drawn


@pytest.mark.parametrize("name", NARROWED)
@pytest.mark.sample(6)
def test_blocks_get_narrower(name: str) -> None:
    make, after = NARROWED[name]
    model = trained_like(make()).eval()
    rewritten, diff = assert_rewrites(NarrowHidden(), model, after, shape=SHAPE)
    assert {edit.fate for edit in diff.edits} == {"inherited"}
    x = torch.rand(2, 3, 21, 18)
    got = run(rewritten.program.graph_module, x)
    assert got.shape == run(model, x).shape
    assert got.isfinite().all()
    assert diff.after.macs - diff.before.macs == sum(edit.macs for edit in diff.edits) < 0
    assert diff.after.parameters - diff.before.parameters == sum(edit.parameters for edit in diff.edits) < 0


def test_parameters_along_the_channels_get_shorter() -> None:
    rewritten, _ = assert_rewrites(
        NarrowHidden(), NARROWED["scale of each channel"][0](), *_after("scale of each channel")
    )
    assert rewritten.program.tensors["w"].shape == (1, 12, 1, 1)


def _after(name: str) -> tuple[dict[str, str], None, tuple[int, ...]]:
    return NARROWED[name][1], None, SHAPE


@pytest.mark.parametrize("name", NARROWED)
@pytest.mark.sample(6)
def test_all_kept_is_the_same_network(name: str) -> None:
    model = trained_like(NARROWED[name][0]()).double().eval()
    _, diff = assert_rewrites(NarrowHidden(keep=1), model, {}, shape=SHAPE)
    assert not diff.edits
    assert "done" in {skip.code for skip in diff.skips}


def tied() -> nn.Module:
    model = Between(plain, a=conv(8, 16), n=nn.Identity(), c=conv(16, 8), d=conv(8, 16))
    model.function = lambda m, x: plain(m, x) + F.avg_pool2d(m.d(x), 1)[:, :8]
    model.d.weight = model.a.weight
    return model


def hooked() -> nn.Module:
    model = Between(plain, a=conv(8, 16), n=nn.Identity(), c=conv(16, 8))
    model.c.register_forward_pre_hook(lambda module, inputs: (inputs[0] + 1,))
    return model


def side_by_side(y: Tensor) -> Tensor:
    return y[:, ::2] * y[:, 1::2]


STAYING: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "skip connection": (
        lambda: Between(lambda m, x: m.c(torch.cat([m.a(x), x], 1)), a=conv(8, 8), c=conv(16, 8)),
        "stream",
    ),
    "residual stream": (lambda: Between(lambda m, x: x + m.a(x), a=conv(8, 8)), "stream"),
    "layer norm": (
        lambda: Between(
            lambda m, x: x + m.c(m.n(m.a(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)),
            a=conv(8, 16),
            n=nn.LayerNorm(16),
            c=conv(16, 8),
        ),
        "between",
    ),
    "pixel shuffle": (
        lambda: Between(lambda m, x: x + F.avg_pool2d(F.pixel_shuffle(m.a(x), 2), 2), a=conv(8, 32)),
        "between",
    ),
    "called twice": (
        lambda: Between(
            lambda m, x: x + m.c(m.n(m.a(x))) + m.n(torch.cat([x, x], 1))[:, :8],
            a=conv(8, 16),
            n=nn.InstanceNorm2d(16),
            c=conv(16, 8),
        ),
        "called-twice",
    ),
    "tied": (tied, "tied"),
    "hooked": (hooked, "between"),
    "too few": (lambda: Between(lambda m, x: x + m.c(m.a(x)), a=conv(8, 4), c=conv(4, 8)), "threshold"),
    "one": (lambda: Between(lambda m, x: x + m.c(m.a(x)), a=conv(8, 1), c=conv(1, 8)), "one-channel"),
    "parts": (
        lambda: Between(
            lambda m, x: x + m.b(m.a(x)[:, :8]) + m.c(m.a2(x)[:, 2:]),
            a=conv(8, 16),
            a2=conv(8, 8),
            b=conv(8, 8),
            c=conv(6, 8),
        ),
        "parts",
    ),
    "every other one": (
        lambda: Between(
            lambda m, x: x + m.c(m.a(x)[:, ::2] * m.a2(x)[:, 1::2]), a=conv(8, 16), a2=conv(8, 16), c=conv(8, 8)
        ),
        "parts",
    ),
    "pairs side by side": (
        lambda: Between(lambda m, x: x + m.c(side_by_side(m.a(x))), a=conv(8, 16), c=conv(8, 8)),
        "parts",
    ),
    "returned": (lambda: Between(lambda m, x: m.a(x), a=conv(8, 8)), "neighbour-held"),
    "pooled": (
        lambda: Between(lambda m, x: x * m.c(F.relu(m.a(x.mean((2, 3), keepdim=True)))), a=conv(8, 16), c=conv(16, 8)),
        "place",
    ),
}


@pytest.mark.parametrize("name", STAYING)
@pytest.mark.sample(6)
def test_what_stays_says_why(name: str) -> None:
    make, code = STAYING[name]
    _, diff = assert_rewrites(NarrowHidden(layers=("a",)), make().eval(), {}, shape=SHAPE)
    assert [(skip.path, skip.code) for skip in diff.skips] == [("a", code)]


def test_the_size_of_hidden_channels_may_matter() -> None:
    def divided(m: Between, x: Tensor) -> Tensor:
        y = m.a(x)
        return x + m.c(y) / y.shape[1]

    model = Between(divided, a=conv(8, 16), c=conv(16, 8)).eval()
    assert_rewrites(
        NarrowHidden(), model, {}, {"a": "size-asked", "c": "stream", "first": "stream", "last": "stream"}, SHAPE
    )


def test_ends_of_the_network_stay() -> None:
    model = nn.Sequential(conv(3, 16, 3), nn.ReLU(), conv(16, 16, 3), nn.ReLU(), conv(16, 3, 3)).eval()
    assert_rewrites(NarrowHidden(), model, {}, {"0": "input", "2": "neighbour-held", "4": "stream"}, SHAPE)


# What is redundant goes for nothing


def redundant(model: Between, dead: int, copies: int) -> Between:
    """Of the channels that `a` makes, the last few say nothing: they are constant, or copies of the first."""
    model = trained_like(model).double().eval()
    with torch.no_grad():
        for name, tensor in model.a.named_parameters():
            if name == "weight":
                tensor[-dead:] = 0
            tensor[-dead - copies : -dead] = tensor[:copies]
    return model


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [1, 3])
def test_redundant_channels_cost_nothing(bias: bool, size: int) -> None:
    make = Between(lambda m, x: x + m.c(F.gelu(m.a(x))), a=conv(8, 16, size, bias=bias), c=conv(16, 8, size, bias=bias))
    model = redundant(make, dead=2, copies=2)
    if size == 3:
        nn.init.zeros_(model.a.bias[-2:]) if bias else None  # what is constant is not so at a padded border
    rewritten, _ = assert_rewrites(
        NarrowHidden(), model, {"a": rewritten_as(8, 12, size, bias), "c": rewritten_as(12, 8, size, bias)}, shape=SHAPE
    )
    x = torch.randn(2, 3, 17, 19, dtype=torch.float64)
    assert distance(run(rewritten.program.graph_module, x), run(model, x)) < 1e-7


def test_redundant_channels_of_a_shared_block_cost_nothing() -> None:
    """What a call reads counts as what every other one does."""
    make = Between(lambda m, x: plain(m, torch.tanh(plain(m, x))), a=conv(8, 16), n=nn.BatchNorm2d(16), c=conv(16, 8))
    model = redundant(make, dead=2, copies=2)
    with torch.no_grad():
        for tensor in (model.n.weight, model.n.bias, model.n.running_mean, model.n.running_var):
            tensor[-4:-2] = tensor[:2]
    rewritten, _ = assert_rewrites(
        NarrowHidden(),
        model,
        {"a": rewritten_as(8, 12, 1, True), "n": str(nn.BatchNorm2d(12)), "c": rewritten_as(12, 8, 1, True)},
        shape=SHAPE,
    )
    x = torch.randn(2, 3, 17, 19, dtype=torch.float64)
    assert distance(run(rewritten.program.graph_module, x), run(model, x)) < 1e-7


def rewritten_as(inputs: int, outputs: int, size: int, bias: bool) -> str:
    return f"Conv2d({inputs}→{outputs}, k{size}{', bias' if bias else ''})"


def test_redundant_rows_cost_nothing() -> None:
    model = Between(rows, d=depthwise(8, 7), n=nn.LayerNorm(8), a=nn.Linear(8, 32), c=nn.Linear(32, 8))
    model = redundant(model, dead=4, copies=4)
    rewritten, _ = assert_rewrites(NarrowHidden(), model, *_after("multilayer perceptron"))
    x = torch.randn(2, 3, 17, 19, dtype=torch.float64)
    assert distance(run(rewritten.program.graph_module, x), run(model, x)) < 1e-7


def test_redundant_pairs_of_a_gate_cost_nothing() -> None:
    model = trained_like(Between(gated, a=conv(8, 32), b=depthwise(32), c=conv(16, 8))).double().eval()
    with torch.no_grad():
        for layer in (model.a, model.b):
            for tensor in layer.parameters():
                for half in (tensor[:16], tensor[16:]):
                    half[2], half[9] = half[0], half[5]
        for tensor in (*model.a.parameters(), *model.b.parameters()):
            tensor[[3, 28]] = 0
    rewritten, _ = assert_rewrites(NarrowHidden(), model, *_after("gate"))
    x = torch.randn(2, 3, 17, 19, dtype=torch.float64)
    assert distance(run(rewritten.program.graph_module, x), run(model, x)) < 1e-7


def test_what_costs_least_goes() -> None:
    """Channels that are hardly read."""
    model = trained_like(Between(plain, a=conv(8, 32), n=nn.Identity(), c=conv(32, 8))).eval()
    with torch.no_grad():
        model.c.weight[:, ::4] *= 0.01
    kept = apply(model, [NarrowHidden()], torch.rand(SHAPE)).rewritten.program.modules["a"].weight
    left = {index for index, row in enumerate(model.a.weight) if (kept == row).flatten(1).all(1).any()}
    assert left == set(range(32)) - set(range(0, 32, 4))


# Options, networks


def test_a_number_a_share_and_multiples() -> None:
    block = NARROWED["inverted residual"][0]

    def width(**options: Any) -> int:
        result = apply(block().eval(), [NarrowHidden(**options)], torch.rand(SHAPE))
        return int(result.rewritten.program.modules["a"].out_channels)  # type: ignore[arg-type]

    assert [width(keep=keep) for keep in (0.5, "1/2", 16, Fraction(1, 2))] == [16] * 4
    assert width(keep=0.7, multiple=8) == 24  # nearest to 22.4
    assert width(keep=0.7, multiple=1) == 22
    assert width(keep=20, multiple=8) == 24  # upwards from the middle
    assert width(keep=40) == 32


@pytest.mark.parametrize("options", [{"keep": 0}, {"keep": 1.5}, {"keep": -3}, {"multiple": 0}])
def test_bad_options(options: dict[str, Any]) -> None:
    with raising(RoadmapError, "bad-value", next(iter(options))):
        Roadmap.from_dict({"pass": [{"name": "narrow-hidden", **options}]})


def test_a_share_is_of_the_original_width() -> None:
    model = NARROWED["inverted residual"][0]().eval()
    result = apply(model, [NarrowHidden(keep=0.75), NarrowHidden(keep=0.75), NarrowHidden(keep=0.5)], torch.rand(SHAPE))
    assert [len(diff.edits) for diff in result.diffs] == [4, 0, 4]
    assert result.rewritten.program.modules["a"].out_channels == 16


def test_engines_get_multiples_of_what_they_compute_at_once() -> None:
    def left(width: int) -> int:
        model = Between(lambda m, x: x + m.c(F.relu(m.a(x))), a=conv(8, width), c=conv(width, 8)).eval()
        return int(apply(model, [NarrowHidden()], torch.rand(SHAPE)).rewritten.program.modules["a"].out_channels)  # type: ignore[arg-type]

    assert [left(width) for width in (20, 48, 72, 80)] == [16, 40, 56, 64]


def test_its_effect_reaches_all_that_gets_narrower() -> None:
    model = network(NARROWED["channel attention"][0]().eval(), *SHAPE)
    assert set(NarrowHidden().reach(model.layers["a"], model)) == {"a", "s", "e", "c"}
    assert not NarrowHidden().reach(model.layers["c"], model)


def test_alternatives_are_those_that_differ() -> None:
    model = network(NARROWED["gate"][0]().eval(), *SHAPE)
    passes: list[Pass] = list(NarrowHidden().alternatives(model.layers["a"], model, bounded=True))
    assert [one.options["keep"] for one in passes] == [Fraction(3, 4), Fraction(1, 2), Fraction(7, 8)]
    assert NarrowHidden().alternatives(model.layers["a"], model) == (NarrowHidden(),)


def test_nafnet_keeps_its_streams_and_halves_its_gates() -> None:
    model = NAFNet(width=8).eval()
    result = apply(model, [NarrowHidden(keep=0.5)], torch.rand(1, 3, 32, 32))
    modules = result.rewritten.program.modules
    for path, layer in result.original.program.modules.items():
        now = modules[path]
        if path.endswith(("conv1", "conv4")):
            assert (now.in_channels, now.out_channels) == (layer.in_channels, layer.out_channels // 2)
        elif path.endswith(("conv3", "conv5")):
            assert (now.in_channels, now.out_channels) == (layer.in_channels // 2, layer.out_channels)
        elif path.endswith("sca.1"):
            assert (now.in_channels, now.out_channels) == (layer.in_channels // 2, layer.out_channels // 2)
    assert not {skip.path for skip in result.diffs[0].skips} & {edit.path for edit in result.diffs[0].edits}


def test_partial_convolutions_may_follow() -> None:
    model = NARROWED["inverted residual"][0]().eval()
    result = apply(model, [NarrowHidden(), SepConvToPConv()], torch.rand(SHAPE))
    assert [len(diff.rewritten) for diff in result.diffs] == [4, 1]


def test_where_partial_convolutions_came_first_it_says_why_not() -> None:
    model = NARROWED["inverted residual"][0]().eval()
    result = apply(model, [SepConvToPConv(layers=("b",)), NarrowHidden(layers=("a",))], torch.rand(SHAPE))
    assert [len(diff.rewritten) for diff in result.diffs] == [1, 0]
    assert [(skip.path, skip.code) for skip in result.diffs[1].skips] == [("a", "between")]


@drawn(12)
@given(
    st.sampled_from([*NARROWED]),
    st.fractions(Fraction(1, 8), Fraction(7, 8), max_denominator=8),
    st.sampled_from([1, 2, 4, 8]),
    st.integers(0, 3),
)
def test_any_share_of_any_block(name: str, keep: Fraction, multiple: int, seed: int) -> None:
    torch.manual_seed(seed)
    model = trained_like(NARROWED[name][0]()).double().eval()
    before = network(model, *SHAPE)
    result = apply(model, [NarrowHidden(keep=keep, multiple=multiple)], torch.rand(SHAPE, dtype=torch.float64))
    x = torch.rand(2, 3, 12, 19, dtype=torch.float64)
    got = run(result.rewritten.program.graph_module, x)
    assert got.shape == run(model, x).shape
    assert got.isfinite().all()
    was, now = (n.program.modules["c"].weight for n in (before, result.rewritten))
    turned = isinstance(model.c, nn.ConvTranspose2d)
    width, left = was.shape[1 - turned], now.shape[1 - turned]
    assert left == width or (left % multiple == 0 and abs(left - keep * width) < max(multiple, 8))
    (verdict,) = result.verdicts
    assert verdict.holds
