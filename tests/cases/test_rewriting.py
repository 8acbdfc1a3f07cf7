"""Cases of rewriting: what a pass may take for what it is, weights, precision, fitting, and global states."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from mofa_compiler import Roadmap, apply, load, recover
from mofa_compiler.base.errors import RewriteError
from mofa_compiler.calibration import Calibration
from mofa_compiler.frontend import CaptureWarning
from mofa_compiler.numerics.finite import NotFiniteWarning
from mofa_compiler.passes import DecoupleDownsampling, LowerLayerNorm, MergeLinear
from mofa_compiler.reproduce.verify import verify
from tests.raising import raising

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
@pytest.mark.filterwarnings("ignore::mofa_compiler.frontend.CaptureWarning")
@pytest.mark.parametrize("name", ["net", "netp"])
@pytest.mark.sample(1)
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
    with raising(RewriteError, "not-finite", "2.running_var"):
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
@pytest.mark.slow
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
@pytest.mark.sample(1)
def test_any_number_of_tuning_steps(case: ModuleType, tuning: int) -> None:
    batches = [torch.rand(2, 3, 16, 16) for _ in range(2)]
    result = apply(case.Net().eval(), "mofa", batches[0], Calibration(batches, tuning=tuning))
    assert result.diffs[-1].pass_name == "calibration"


@pytest.mark.case("reliability/07_half_and_lowered_norm.py")
@pytest.mark.case("peers/01_wide_norm_half.py")
@pytest.mark.parametrize("before", [True, False], ids=["half from the start", "half afterwards"])
def test_a_lowered_norm_holds_in_half_precision(before: bool) -> None:
    with imported("peers/01_wide_norm_half.py") as case:
        torch.manual_seed(0)
        net, x = case.Net().eval(), case.example()
    expected, half = net(x), copy.deepcopy(net).half()
    result = apply(half, [LowerLayerNorm()], x.half()) if before else apply(net, [LowerLayerNorm()], x)
    assert result.diffs[0].edits
    assert all(verdict.holds for verdict in result.verdicts)
    for model in (half, result.model.eval().half()):
        assert (model(x.half()) - expected).norm() < 2e-3 * expected.norm()


@pytest.mark.case("peers/08_norms_that_do_not_merge.py")
def test_norms_merge_rightly_or_stay_with_the_reason(case: ModuleType) -> None:
    torch.manual_seed(0)
    net, x = case.Net().eval(), case.example()
    statistics = {name: buffer.clone() for name, buffer in net.named_buffers()}
    result = apply(net.double(), [MergeLinear()], x.double())
    taken = {edit.path for edit in result.diffs[0].edits if edit.fate == "removed"}
    codes = {skip.path: skip.code for skip in result.diffs[0].skips}
    assert "grouped" in taken  # rows of a transposed weight belong to groups
    assert "live" not in taken
    assert codes["live"] == "no-statistics"
    assert all(edit.error is None or edit.error < 1e-9 for edit in result.diffs[0].edits)
    assert torch.allclose(result.model.eval()(x.double()), net(x.double()), rtol=1e-9, atol=1e-9)
    assert all(torch.equal(buffer, statistics[name]) for name, buffer in net.float().named_buffers())


@pytest.mark.case("peers/08_norms_that_do_not_merge.py")
@pytest.mark.slow
def test_norms_survive_calibration_and_training(case: ModuleType) -> None:
    torch.manual_seed(0)
    net, x = case.Net().eval(), case.example()
    with torch.no_grad():
        net.grouped.weight[1] = -2
    statistics = {name: buffer.clone() for name, buffer in net.named_buffers()}
    passes = [*Roadmap.load("mofa").passes, MergeLinear()]
    result = apply(net, passes, x, Calibration([x, x.flip(2)], tuning=2))
    assert all(verdict.holds for verdict in result.verdicts)
    assert all(tensor.isfinite().all() for tensor in result.model.state_dict().values())
    images = list(torch.rand(8, 3, 32, 32))
    recover(result, net, images, steps=2, batch=2, batch_statistics=True, cpu=True)
    assert all(tensor.isfinite().all() for tensor in result.model.state_dict().values())
    assert all(torch.equal(buffer, statistics[name]) for name, buffer in net.named_buffers())


@pytest.mark.case("peers/09_tied_and_repeated.py")
@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.sample(1)
def test_what_is_shared_stays_shared(case: ModuleType, calibrated: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, x = case.Net().eval(), case.example()
    calibration = Calibration([x, x.flip(3)], tuning=2) if calibrated else None
    result = apply(net, [DecoupleDownsampling(), *Roadmap.load("mofa").passes], x, calibration)
    assert result.before.parameters == sum(parameter.numel() for parameter in net.parameters())
    places = 32 * 32
    once = places * 3 * 16 * 9 * 2 + places // 4 * 16 * 32 * 4 * 2
    assert result.before.macs == once + 3 * places // 4 * (32 * 9 + 32 * 32)
    assert "tied" in {skip.code for diff in result.diffs for skip in diff.skips if skip.path == "down"}
    assert not any(edit.path == "down" for diff in result.diffs for edit in diff.edits)
    with torch.no_grad():
        assert torch.equal(result.original.program.graph_module(x), net(x))  # alpha, at every call
    assert result.model.mix is result.model.alias
    loaded = load(result.save(tmp_path / "bundle"))
    assert torch.equal(loaded(x), result.model.eval()(x))
    assert verify(tmp_path / "bundle", net).ok
    recover(result, net, list(torch.rand(8, 3, 32, 32)), steps=2, batch=2, cpu=True)
    assert result.model.mix is result.model.alias
