"""An original that is not finite is named as the cause, by the layer, and no pass is."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mofa_compiler import apply, verify
from mofa_compiler.analysis.anatomy import infer
from mofa_compiler.analysis.network import Network
from mofa_compiler.base.errors import CalibrationError, RewriteError, VerificationError
from mofa_compiler.calibration import Calibration
from mofa_compiler.frontend import capture
from mofa_compiler.numerics import finite
from mofa_compiler.numerics.finite import NotFiniteWarning, first_not_finite
from mofa_compiler.passes import MergeLinear
from tests.raising import raising

ALL_PASSES = "mofa"


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.depth, self.mix = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 8, 1)
        self.head = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.head(self.mix(self.depth(self.norm(self.stem(x)))))  # type: ignore[no-any-return]


def net(**filled: float) -> Net:
    torch.manual_seed(0)
    model = Net().eval()
    for path, value in filled.items():
        model.get_submodule(path).weight.data.fill_(value)  # type: ignore[union-attr]
    return model


X = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("layer", ["depth", "mix"])
def test_the_layer_is_named_before_anything_is_rewritten(layer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    with pytest.warns(NotFiniteWarning, match=f"from layer '{layer}' on"):
        result = apply(net(**{layer: 3e38}), ALL_PASSES, X, progress=lambda step, *_: seen.append(step))
    problems = {verdict.problem for verdict in result.verdicts}
    assert all(f"from layer '{layer}' on" in problem and "bug" not in problem for problem in problems)


@pytest.mark.filterwarnings("ignore::mofa_compiler.numerics.finite.NotFiniteWarning")
def test_verify_blames_the_original(tmp_path: Path) -> None:
    model = net(mix=3e38)
    result = apply(model, [MergeLinear()], X)
    result.save(tmp_path / "bundle")
    found = verify(tmp_path / "bundle", model)
    assert {check.name for check in found.checks if not check.ok} <= {"output"}
    assert all("bug" not in problem and "'mix'" in problem for problem in found.problems)


def test_what_is_masked_afterwards_counts_for_nothing() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x) / 0.0
            return torch.where(y.isfinite(), y, x)

    with warnings.catch_warnings():
        warnings.simplefilter("error", NotFiniteWarning)
        apply(Masked().eval(), ALL_PASSES, X)


def test_values_that_stay_infinite_in_the_same_places_are_no_error() -> None:
    class Sky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            return torch.where(x > 0.5, float("inf"), self.norm(self.conv(x)))

    with pytest.warns(NotFiniteWarning):
        result = apply(Sky().eval(), [MergeLinear()], X)
    assert result.diffs[0].edits
    assert all(verdict.holds and verdict.relative_error < 1e-6 for verdict in result.verdicts)


def test_an_example_that_is_not_finite_is_named() -> None:
    x = X.clone()
    x[0, 0, 0, 0] = float("nan")
    with pytest.warns(NotFiniteWarning, match="from its input 'x' on"):
        result = apply(net(), ALL_PASSES, x)
    assert all("bug" not in verdict.problem for verdict in result.verdicts)
    with raising(VerificationError, "not-finite", "given input 0"):
        result.verify(inputs=[x])


@pytest.mark.parametrize("value", [-1.0, -1e-4])
def test_a_negative_variance_is_named(value: float) -> None:
    model = net()
    assert model.norm.running_var is not None
    model.norm.running_var[3] = value
    with raising(RewriteError, "not-finite", "norm.running_var", "channel 3"):
        apply(model, ALL_PASSES, X)


def test_a_variance_that_eps_makes_up_for_is_none() -> None:
    model = net()
    assert model.norm.running_var is not None
    model.norm.running_var[3] = -1e-7
    assert apply(model, [MergeLinear()], X).verdicts[0].holds


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value: float) -> None:
    with raising(RewriteError, "not-finite", "mix.weight"):
        apply(net(mix=value), ALL_PASSES, X)


@pytest.mark.filterwarnings("ignore::mofa_compiler.numerics.finite.NotFiniteWarning")
def test_calibration_names_the_layer() -> None:
    with raising(CalibrationError, "not-finite", "batch 0", "'mix'"):
        apply(net(mix=3e38), ALL_PASSES, X, Calibration([X]))


def test_a_layer_that_is_not_finite_in_float64_is_no_bug_of_a_pass() -> None:
    model = net().double()
    for layer in (model.stem, model.norm):
        layer.weight.data.fill_(1e308)
    with pytest.warns(NotFiniteWarning), pytest.raises(RewriteError, match="itself gives NaN or infinite"):
        apply(model, [MergeLinear()], X.double())


def test_large_images_are_looked_at_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finite, "AT_MOST", 100_000)
    with pytest.warns(NotFiniteWarning, match="a part of the example input"):
        apply(net(depth=1e30, mix=1e30), ALL_PASSES, torch.rand(1, 3, 64, 64))


def test_the_first_is_found_in_execution_order() -> None:
    program = capture(net(stem=3e38, mix=3e38), X)
    assert first_not_finite(Network(program, infer(program)), _call(program, X)) == "layer 'stem'"


def _call(program: object, x: Tensor) -> object:
    from mofa_compiler.graph.call_spec import CallSpec

    return CallSpec((x,))
