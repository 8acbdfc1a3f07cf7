"""Calibration of networks that write, count, die or hold other precisions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mofa_compiler import apply
from mofa_compiler.base.errors import CalibrationError
from mofa_compiler.calibration import Calibration
from tests.calibration.small import HELD_OUT, Between, X, conv, error, output_errors, same, trained_like, unet
from tests.raising import raising


@pytest.mark.filterwarnings("ignore::mofa_compiler.numerics.finite.NotFiniteWarning")
@pytest.mark.slow
def test_outputs_that_are_not_finite_are_named() -> None:
    model = trained_like(Between(lambda m, x: torch.log(m.b(x)), b=conv(8, 8, 3)))
    with raising(CalibrationError, "not-finite", "batch 0"):
        apply(model, "mofa", X[0], Calibration(X, tuning=0))


def test_modes_are_those_of_the_model() -> None:
    model = unet().train()
    model.downs[0].eval()
    modes = {name: module.training for name, module in model.named_modules()}
    result = apply(model, "mofa", X[0], Calibration(X, tuning=2))
    assert result.diffs[-1].options["kept"] != "inherited"
    for network in result.networks:
        for name, module in network.program.modules.items():
            assert module.training == modes.get(name, modes[name.rpartition(".")[0]]), name
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert result.model.training


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.sample(1)
def test_precision_stays(dtype: torch.dtype) -> None:
    model = unet().to(dtype)
    free = apply(model, "mofa", X[0].to(dtype))
    result = apply(model, "mofa", X[0].to(dtype), Calibration(X, tuning=2))
    assert {tensor.dtype for tensor in result.model.parameters()} == {dtype}
    inputs = [x.to(dtype) for x in X]
    assert error(result, model, inputs) <= error(free, model, inputs) + 1e-6


def test_nothing_was_rewritten() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 3, 3))
    result = apply(model, "mofa", calibration=Calibration(X, tuning=2))
    assert result.diffs[-1].edits == result.diffs[-1].skips == ()
    assert output_errors(result.diffs[-1])["inherited"] == 0
    assert same(result.model, model)


@pytest.mark.parametrize("zero", [True, False])
@pytest.mark.sample(1)
def test_dead_layers(zero: bool) -> None:
    """A ReLU that is always zero, and a network that is nothing but."""
    model = unet()
    with torch.no_grad():
        for norm in [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)][: None if zero else 1]:
            norm.bias.fill_(-1e3)
        if zero:
            model.outc.bias.zero_()
    result = apply(model, "mofa", X[0], Calibration(X, tuning=3))
    assert all(tensor.isfinite().all() for tensor in result.model.state_dict().values())
    assert error(result, model, X) <= error(apply(model, "mofa", X[0]), model, X)


def test_a_network_that_writes_into_its_input() -> None:
    class Writes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(conv(3, 8, 3), nn.ReLU(inplace=True), conv(8, 8, 3), nn.SiLU(), conv(8, 3, 3))

        def forward(self, x: Tensor) -> Tensor:
            x.mul_(2).sub_(1)
            result: Tensor = self.body(x) + x
            return result

    model = trained_like(Writes())
    result = apply(model, "mofa", X[0].clone(), Calibration(X, tuning=3))
    said = output_errors(result.diffs[-1])[result.diffs[-1].options["kept"]]
    assert 100 * error(result, model, HELD_OUT) == pytest.approx(said, rel=0.01)
    assert error(result, model, X) < error(apply(model, "mofa", X[0].clone()), model, X)


def test_a_network_that_counts_its_calls() -> None:
    """A buffer that the graph writes into is not worn by the images of calibration."""

    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(conv(3, 8, 3), nn.SiLU(), conv(8, 8, 3), nn.SiLU(), conv(8, 3, 3))
            self.register_buffer("calls", torch.tensor(0.0))

        def forward(self, x: Tensor) -> Tensor:
            self.calls.add_(1)
            result: Tensor = self.body(x)
            return result

    model = trained_like(Counts())
    result = apply(model, "mofa", X[0], Calibration(X, tuning=2))
    assert float(model.calls) == float(result.model.calls) == 0
    assert result.keymap["calls"].fate == "kept"


def test_statistics_without_weights_are_in_the_diff() -> None:
    layers = [conv(3, 16, 3), nn.BatchNorm2d(16, affine=False), nn.SiLU(), conv(16, 16, 3), nn.SiLU(), conv(16, 3, 3)]
    result = apply(trained_like(nn.Sequential(*layers)), "mofa", X[0], Calibration(X, tuning=0))
    assert result.channel_orders
    fates = {edit.path: edit.fate for edit in result.diffs[-1].edits}
    assert fates["1"] == "reordered"
    assert result.keymap["1.running_mean"].fate == "calibrated"
