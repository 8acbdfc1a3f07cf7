"""Cases of rewriting: what a pass may take for what it is, weights, precision, fitting, and global states."""

from __future__ import annotations

import random
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from mofa_compiler import apply, load
from mofa_compiler.calibration import Calibration
from mofa_compiler.errors import RewriteError
from mofa_compiler.passes import MergeLinear
from mofa_compiler.tracing import CaptureWarning
from mofa_compiler.verification.checking import verify
from mofa_compiler.verification.finite import NotFiniteWarning

from .files import imported


@pytest.mark.case("reliability/02_forward_replaced_on_a_layer.py")
def test_a_layer_whose_forward_was_replaced_is_not_taken_for_a_plain_one(case: ModuleType) -> None:
    torch.manual_seed(0)
    net, x = case.Net().eval(), torch.rand(1, 3, 32, 32)
    plain = apply(net, "mofa", x).model.eval()(x)
    inner = net.depth.forward
    net.depth.forward = lambda t: inner(t) * 100
    result = apply(net, "mofa", x)
    assert not torch.equal(result.model.eval()(x), plain)
    assert torch.equal(result.original.program.graph_module(x), net(x))
    assert "depth" not in {edit.path for diff in result.diffs for edit in diff.rewritten}


@pytest.mark.case("checkpoints/weight_norm/net.py", "checkpoints/weight_norm/netp.py")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::mofa_compiler.tracing.CaptureWarning")
@pytest.mark.parametrize("name", ["net", "netp"])
def test_a_weight_normalization_is_folded(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    with imported(f"checkpoints/weight_norm/{name}.py") as module:
        net, x = module.Net().eval(), torch.rand(1, 3, 32, 32)
    with pytest.warns(CaptureWarning, match="b.weight"):
        result = apply(net, "mofa", x)
    assert torch.equal(result.original.program.graph_module(x), net(x))
    assert set(result.keymap) == set(net.state_dict())
    assert "b" in {edit.path for edit in result.diffs[0].rewritten}
    assert torch.equal(load(result.save(tmp_path / "bundle"))(x), result.model.eval()(x))
    assert verify(tmp_path / "bundle", net).ok


@pytest.mark.case("reliability/09_not_finite_already.py")
@pytest.mark.parametrize("passes", ["mofa", [MergeLinear()]])
def test_an_original_that_is_not_finite_is_named(case: ModuleType, passes: Any) -> None:
    torch.manual_seed(0)
    net, x = case.Net().eval(), torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        net.mix.weight.fill_(3e38)
    with pytest.warns(NotFiniteWarning, match="'mix'"):
        result = apply(net, passes, x)
    assert all("bug" not in verdict.problem for verdict in result.verdicts)
    assert all("'mix'" in verdict.problem for verdict in result.verdicts if verdict.problem)


@pytest.mark.case("reliability/09_not_finite_already.py")
def test_a_negative_running_variance_is_named(case: ModuleType) -> None:
    net = nn.Sequential(case.Net(), nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 3, 1)).eval()
    net[2].running_var[0] = -1
    with pytest.raises(RewriteError, match=r"2\.running_var is negative"):
        apply(net, "mofa", torch.rand(1, 3, 32, 32))


@pytest.mark.case("reliability/10_raw_exceptions_from_apply.py")
def test_inference_mode_and_models_built_in_it(case: ModuleType) -> None:
    x = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        model = apply(case.Net(), "mofa", x).model
    for made in (model, apply(case.inference(), "mofa", x).model):
        made.train()(x).sum().backward()
        assert not any(parameter.is_inference() for parameter in made.parameters())


@pytest.mark.case("reliability/13_global_state.py")
def test_saving_and_loading_leave_the_generators_alone(case: ModuleType, tmp_path: Path) -> None:
    result = apply(case.Net().eval(), "mofa", torch.rand(1, 3, 32, 32))
    before = random.getstate(), torch.get_rng_state()
    load(result.save(tmp_path / "bundle"))
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


@pytest.mark.case("reliability/16_frozen_becomes_trainable.py")
def test_what_comes_of_a_frozen_weight_is_frozen(case: ModuleType) -> None:
    net = case.Net()
    net.depth.weight.requires_grad_(False)
    parameters = dict(apply(net, "mofa", torch.rand(1, 3, 32, 32)).model.named_parameters())
    assert not parameters["depth.conv.weight"].requires_grad
    assert parameters["depth.conv.bias"].requires_grad


@pytest.mark.case("reliability/01_onecycle_of_ten_steps.py")
@pytest.mark.parametrize("tuning", [0, 1, 10, 20])
def test_any_number_of_tuning_steps(case: ModuleType, tuning: int) -> None:
    batches = [torch.rand(2, 3, 16, 16) for _ in range(2)]
    result = apply(case.Net().eval(), "mofa", batches[0], Calibration(batches, tuning=tuning))
    assert result.diffs[-1].pass_name == "calibration"
