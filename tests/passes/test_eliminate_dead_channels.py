"""Dead channels, layers and branches: what goes, what takes the constants up, and that nothing else changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from architectures import PMRID
from images import TRAINING
from mofa_compiler import Roadmap, apply, verify
from mofa_compiler.analysis.layers import signature
from mofa_compiler.analysis.network import Network
from mofa_compiler.base.errors import RoadmapError
from mofa_compiler.calibration import Calibration
from mofa_compiler.passes import EliminateDeadChannels, SepConvToPConv
from mofa_compiler.rewriting.diff import Diff
from mofa_compiler.rewriting.engine import rewrite
from raw_images import raw_cases
from tests.calibration.small import Between, conv
from tests.passes.hidden_blocks import attended, gated, plain
from tests.raising import raising
from tests.rewrites import assert_rewrites, assert_same_outputs, scattered

SHAPE = (1, 3, 16, 16)


def constant(layer: nn.Module, channels: slice, value: float = -1.0) -> nn.Module:
    """The layer with channels that are `value` whatever it reads."""
    with torch.no_grad():
        layer.get_parameter("weight")[channels] = 0
        layer.get_parameter("bias")[channels] = value
    return layer


def assert_eliminated(
    model: nn.Module, after: dict[str, str | None], skips: dict[str, str] | None = None
) -> tuple[Network, Diff]:
    """What goes, by the weights alone, leaves the output as it was in float64, on other inputs and at two sizes."""
    model = model.double().eval()
    rewritten, diff = assert_rewrites(EliminateDeadChannels(), model, after, skips, SHAPE)
    assert_same_outputs(model, rewritten, SHAPE)
    assert diff.after.macs - diff.before.macs == sum(edit.macs for edit in diff.edits)
    assert diff.after.parameters - diff.before.parameters == sum(edit.parameters for edit in diff.edits)
    assert not rewrite(rewritten, EliminateDeadChannels())[1].edits
    return rewritten, diff


def block(function: Callable[[Between, Tensor], Tensor], **layers: nn.Module | nn.Parameter) -> Between:
    model = Between(function, **layers)
    scattered(model)
    return model


def test_hidden_channels_that_an_activation_stops_go() -> None:
    model = block(plain, a=conv(8, 16, 3), n=nn.Identity(), c=conv(16, 8, 3))
    constant(model.a, slice(4, 10))
    _, diff = assert_eliminated(model, {"a": "Conv2d(8→10, k3, bias)", "c": "Conv2d(10→8, k3, bias)"})
    assert {edit.fate for edit in diff.edits} == {"inherited"}
    assert not diff.exact


def test_a_constant_goes_into_a_bias_where_no_zeros_come_in() -> None:
    model = block(plain, a=conv(8, 16, 3), n=nn.Identity(), c=conv(16, 8))
    constant(model.a, slice(4, 10), 2.0)
    assert_eliminated(model, {"a": "Conv2d(8→10, k3, bias)", "c": "Conv2d(10→8, k1, bias)"})


@pytest.mark.parametrize("c", [conv(16, 8, 3), conv(16, 8, bias=False)], ids=["border", "no bias"])
def test_a_constant_that_nothing_takes_up_stays(c: nn.Conv2d) -> None:
    model = block(plain, a=conv(8, 16, 3), n=nn.Identity(), c=c)
    constant(model.a, slice(4, 10), 2.0)
    _, diff = assert_eliminated(model, {})
    assert [(skip.path, skip.code) for skip in diff.skips] == [("a", "padding")]


def test_reflected_borders_are_as_constant_as_the_rest() -> None:
    model = block(plain, a=conv(8, 16), n=nn.Identity(), c=conv(16, 8, 3, padding_mode="reflect"))
    constant(model.a, slice(4, 10), 2.0)
    assert_eliminated(model, {"a": "Conv2d(8→10, k1, bias)", "c": "Conv2d(10→8, k3, bias)"})


def test_scales_of_a_norm_that_went_to_zero_take_their_channels_along() -> None:
    model = block(plain, a=conv(8, 16), n=nn.BatchNorm2d(16), c=conv(16, 8, 3))
    constant(model.n, slice(4, 10), -0.5)
    assert_eliminated(
        model, {"a": "Conv2d(8→10, k1, bias)", "n": signature(nn.BatchNorm2d(10)), "c": "Conv2d(10→8, k3, bias)"}
    )


def test_channels_that_no_layer_reads_go() -> None:
    model = block(plain, a=conv(8, 16), n=nn.Identity(), c=conv(16, 8, 3))
    with torch.no_grad():
        model.c.weight[:, 4:10] = 0
    assert_eliminated(model, {"a": "Conv2d(8→10, k1, bias)", "c": "Conv2d(10→8, k3, bias)"})


def test_one_half_of_a_gate_is_enough() -> None:
    model = block(gated, a=conv(8, 32), b=conv(32, 32, 3, groups=32), c=conv(16, 8))
    constant(model.b, slice(4, 10), 0.0)
    after = {"a": "Conv2d(8→20, k1, bias)", "b": "Conv2d(20, k3, bias, depthwise)", "c": "Conv2d(10→8, k1, bias)"}
    assert_eliminated(model, after)


def test_a_gate_that_is_always_the_same_is_a_scale() -> None:
    model = block(attended, a=conv(8, 16), s=conv(16, 4), e=conv(4, 16), c=conv(16, 8))
    constant(model.e, slice(None), 0.3)
    rewritten, _ = assert_eliminated(model, {"s": None, "e": None})
    assert rewritten.program.tensors["sigmoid_constant"].shape == (1, 16, 1, 1)


def test_a_branch_with_a_scale_of_zero_goes() -> None:
    model = block(
        lambda m, x: x + m.c(F.gelu(m.a(x))) * m.w,
        a=conv(8, 16),
        c=conv(16, 8),
        w=nn.Parameter(torch.zeros(1, 8, 1, 1)),
    )
    nn.init.zeros_(model.w)
    rewritten, diff = assert_eliminated(model, {"a": None, "c": None})
    assert "w" not in rewritten.program.tensors
    assert {edit.path for edit in diff.edits if edit.fate == "removed"} >= {"a", "c", "w"}


def test_a_constant_branch_goes_into_the_bias_of_what_it_is_added_to() -> None:
    model = block(lambda m, x: m.b(x) + m.c(F.relu(m.a(x))), a=conv(8, 16), b=conv(8, 8), c=conv(16, 8))
    constant(model.a, slice(None), 2.0)
    rewritten, diff = assert_eliminated(model, {"a": None, "c": None})
    assert ("b", "compensated") in {(edit.path, edit.fate) for edit in diff.edits}
    assert not rewritten.program.tensors


def test_or_is_added_by_itself() -> None:
    model = block(lambda m, x: x * x + m.c(F.relu(m.a(x))), a=conv(8, 16), c=conv(16, 8))
    constant(model.a, slice(None), 2.0)
    rewritten, _ = assert_eliminated(model, {"a": None, "c": None})
    assert [tensor.shape for tensor in rewritten.program.tensors.values()] == [(1, 8, 1, 1)]


@pytest.mark.parametrize("stride", [1, 2])
def test_what_is_constant_but_for_the_border_keeps_its_border(stride: int) -> None:
    def branch(m: Between, x: Tensor) -> Tensor:
        return m.d(x) + m.c(F.relu(m.a(m.b(x))))

    layers = {
        "b": nn.Conv2d(8, 12, 5, stride, 2),
        "a": conv(12, 16),
        "c": conv(16, 8, 3),
        "d": nn.Conv2d(8, 8, 1, stride),
    }
    model = block(branch, **layers)
    constant(model.a, slice(None), 0.7)
    made = f"Conv2d(8→16, k1{', s2' if stride == 2 else ''}, bias, groups=8)"
    assert_eliminated(model, {"a": None, "b": None, "relu_image": made})


def test_a_size_without_a_simple_relation_to_another_stays() -> None:
    def branch(m: Between, x: Tensor) -> Tensor:
        return x + F.interpolate(m.c(F.relu(m.a(F.avg_pool2d(x, 3, 2)))), x.shape[2:])

    model = block(branch, a=conv(8, 16), c=conv(16, 8, 3))
    constant(model.a, slice(None), 0.7)
    _, diff = assert_eliminated(model, {})
    assert "between" in {skip.code for skip in diff.skips}


def test_a_skip_connection_is_not_written_over_by_what_becomes_of_its_copy() -> None:
    def written(m: Between, x: Tensor) -> Tensor:
        y = F.relu_(m.c(F.relu(m.a(x))) + x)
        return torch.cat([y, x], 1)

    model = block(lambda m, x: m.d(written(m, x)), a=conv(8, 16), c=conv(16, 8, bias=False), d=conv(16, 8))
    constant(model.a, slice(None))
    assert_eliminated(model, {"a": None, "c": None})


def test_dead_parts_of_a_concatenation_are_zeros() -> None:
    model = block(lambda m, x: m.c(torch.cat([x, F.relu(m.a(x))], 1)), a=conv(8, 16, 3), c=conv(24, 8, 3))
    constant(model.a, slice(None))
    assert_eliminated(model, {"a": None, "relu_image": "Conv2d(8→16, k1, bias, groups=8)"})


def test_residual_streams_keep_their_dead_channels_and_say_so() -> None:
    model = block(lambda m, x: x + F.relu(m.a(x)), a=conv(8, 8))
    constant(model.a, slice(4, 6))
    _, diff = assert_eliminated(model, {})
    assert [(skip.path, skip.code) for skip in diff.skips] == [("a", "stream")]


def test_a_norm_in_training_is_not_what_its_weights_say() -> None:
    model = block(plain, a=conv(8, 16), n=nn.BatchNorm2d(16), c=conv(16, 8))
    constant(model.a, slice(4, 10))
    assert_rewrites(EliminateDeadChannels(), model.train(), {}, shape=SHAPE)


@given(st.lists(st.sampled_from([None, -1.0, 0.0, 0.7]), min_size=16, max_size=16), st.booleans(), st.integers(1, 3))
def test_whatever_is_constant_the_output_stays(values: list[float | None], padded: bool, groups: int) -> None:
    def whole(m: Between, x: Tensor) -> Tensor:
        return x + m.c(F.relu6(m.b(F.relu(m.a(x))))) * torch.sigmoid(m.g(x))

    kernel = 3 if padded else 1
    b = conv(16, 16, 3, groups=16) if groups > 1 else conv(16, 16, kernel)
    model = block(whole, a=conv(8, 16), b=b, c=conv(16, 8, kernel), g=conv(8, 8))
    for layer in (model.a, model.b) if groups == 3 else (model.a,):
        for index, value in enumerate(values):
            if value is not None:
                constant(layer, slice(index, index + 1), value)
    model = model.double().eval()
    rewritten = apply(model, [EliminateDeadChannels()], torch.rand(SHAPE, dtype=torch.float64)).rewritten
    assert_same_outputs(model, rewritten, SHAPE)


@pytest.mark.parametrize("text", ["relu", "relu: x", "relu: 1-", "relu: 1, = 6"])
def test_what_was_seen_is_written_as_it_is_read(text: str) -> None:
    with raising(RoadmapError, "bad-value", text):
        EliminateDeadChannels(seen=(text,))


@pytest.mark.parametrize(("text", "code"), [("gone: 1", "unknown-name"), ("relu: 3, 16", "bad-value")])
def test_what_was_seen_is_of_this_network(text: str, code: str) -> None:
    model = block(plain, a=conv(8, 16), n=nn.Identity(), c=conv(16, 8))
    with raising(RoadmapError, code, text.partition(":")[0]):
        apply(model, [EliminateDeadChannels(seen=(text,))], torch.rand(SHAPE))


def test_what_was_seen_is_taken_away_and_told() -> None:
    model = block(plain, a=conv(8, 16), n=nn.Identity(), c=conv(16, 8))
    pass_ = EliminateDeadChannels(seen=("relu: 3, 5-9",))
    result = apply(model, [pass_], torch.rand(SHAPE))
    assert result.rewritten.program.modules["c"].weight.shape[1] == 10
    assert "not proven" in result.diffs[0].edits[0].note


@pytest.mark.slow
def test_the_bottleneck_of_a_published_denoiser_does_nothing(pmrid: PMRID, tmp_path: Path) -> None:
    places = [(0, 0), (0, 128), (64, 64), (96, 160)]
    cases = raw_cases(TRAINING, (1600, 6400))
    batches = [case.network_input[:, :, y : y + 128, x : x + 128] for case in cases for y, x in places]
    batches = [batch for batch in batches if batch.shape[2:] == (128, 128)]
    result = apply(pmrid, [EliminateDeadChannels()], torch.rand(1, 4, 128, 128), Calibration(batches))
    assert result.after.parameters < 0.3 * result.before.parameters
    assert result.after.macs < 0.82 * result.before.macs
    gone = {edit.path for edit in result.diffs[0].edits if edit.fate == "removed"}
    assert {path for path in pmrid.state_dict() if path.startswith(("enc4.", "encdec."))} == {
        f"{path}.{name}" for path in gone for name in ("weight", "bias") if path.startswith(("enc4.", "encdec."))
    } & set(pmrid.state_dict())
    original, rewritten = pmrid.double(), result.model.double().eval()
    try:
        with torch.no_grad():
            for case in raw_cases():
                expected = original(case.network_input.double())
                assert (rewritten(case.network_input.double()) - expected).abs().max() < 1e-12 * expected.abs().max()
            noise = torch.rand(1, 4, 96, 128, dtype=torch.float64) * 90
            assert (rewritten(noise) - original(noise)).abs().max() < 1e-12 * original(noise).abs().max()
    finally:
        pmrid.float()
    result.model.float()
    result.save(tmp_path / "bundle")
    assert all(check.ok for check in verify(tmp_path / "bundle", pmrid).checks)


def test_it_comes_before_what_changes_values() -> None:
    first, second = Roadmap([SepConvToPConv(), EliminateDeadChannels()])
    assert (first, second) == (EliminateDeadChannels(), SepConvToPConv()), "wherever it stands"
