"""`recover`: the rewritten network comes nearer to the original, and nothing else changes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mofa_compiler import apply, load, recover
from mofa_compiler.base.errors import BundleError, DataError, MofaError, RecoveryError
from mofa_compiler.bundle import files
from mofa_compiler.calibration import Calibration
from mofa_compiler.distillation import Status
from mofa_compiler.distillation.recover import _tapped_teacher
from mofa_compiler.frontend import capture
from mofa_compiler.passes import SepConvToPConv, Unshare
from tests.distillation.small import SIZE, images, network, pairs, rewritten, same, weights
from tests.raising import raising

SHORT: dict[str, Any] = {"steps": 12, "batch": 4, "lr": 3e-3, "validate_every": 4}


@pytest.mark.slow
def test_a_bundle_gets_better_weights_and_says_so(tmp_path: Path) -> None:
    model, bundle = network(), tmp_path / "out"
    rewritten(model).save(bundle)
    before, kept = weights(model), {f.name: f.read_bytes() for f in bundle.iterdir() if f.is_file()}
    seen: list[Status] = []
    recovery = recover(bundle, model, pairs(), progress=seen.append, **SHORT)
    assert recovery.improved and recovery.psnr_after > recovery.psnr_before + 0.1
    assert recovery.psnr_original is not None and recovery.psnr_after == max(p.psnr for p in recovery.history)
    assert [point.step for point in recovery.history] == [0, 4, 8, 12] and recovery.steps == 12
    assert seen[-1].progress == 1 and seen[-1].best == recovery.psnr_after and math.isfinite(seen[-1].loss)
    assert same(weights(model), before) and not model.training
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    changed = {f.name for f in bundle.iterdir() if f.is_file() and f.read_bytes() != kept[f.name]}
    assert changed == {"model.safetensors", "report.json", "report.md", "report.html"}
    (image,) = json.loads((bundle / "report.json").read_text())["images"]
    assert image["name"] == "validation example 1" and (bundle / image["rewritten"]).is_file()
    (entry,) = json.loads((bundle / "report.json").read_text())["recoveries"]
    assert entry["psnr_after"] == recovery.psnr_after and entry["data"] == {"examples": 9, "validation": 1}
    for page in ("report.md", "report.html"):
        assert "Recovered by distillation, 12 steps" in (bundle / page).read_text(encoding="utf-8")

    again = recover(bundle, model, pairs(), **{**SHORT, "steps": 4})
    assert again.psnr_before == recovery.psnr_after
    assert len(json.loads((bundle / "report.json").read_text())["recoveries"]) == 2


@pytest.mark.slow
def test_the_weights_kept_are_those_that_were_validated(tmp_path: Path) -> None:
    model, bundle = network(), tmp_path / "out"
    rewritten(model).save(bundle)
    (x, target), *_ = validation = pairs()[:1]
    recovery = recover(bundle, model, pairs()[1:], validation=validation, **SHORT)
    with torch.no_grad():
        error = (load(bundle)(x[None])[0] - target).square().mean()
    peak = target.max() - target.min()
    assert recovery.psnr_after == pytest.approx(float(10 * torch.log10(peak**2 / error)), abs=1e-4)


@pytest.mark.slow
def test_what_is_worse_is_not_kept(tmp_path: Path) -> None:
    model, bundle = network(), tmp_path / "out"
    rewritten(model).save(bundle)
    kept = (bundle / "model.safetensors").read_bytes()
    recovery = recover(bundle, model, images(), steps=2, batch=2, lr=1.0)
    assert not recovery.improved and recovery.psnr_after == recovery.psnr_before and recovery.psnr_original is None
    assert (bundle / "model.safetensors").read_bytes() == kept
    assert "gave nothing better than the weights from before" in (bundle / "report.md").read_text()


def test_a_result_is_trained_in_place() -> None:
    model = network()
    result = rewritten(model)
    before, modes = weights(result.model), [m.training for m in result.model.modules()]
    recovery = recover(result, model, images(), **SHORT)
    after = weights(result.model)
    assert recovery.improved and before.keys() == after.keys() and not same(before, after)
    statistics = [key for key in before if "running" in key or "tracked" in key]
    assert statistics and all(torch.equal(before[key], after[key]) for key in statistics)
    assert [m.training for m in result.model.modules()] == modes
    assert result.recoveries == (recovery,) and result.report["recoveries"][0]["steps"] == 12
    assert same(weights(result.rewritten.program.graph_module), before)


class Repeated(nn.Module):
    """A convolution that is called several times."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        for _ in range(3):
            y = self.block(y).relu()
        return self.head(y)  # type: ignore[no-any-return]


def test_the_teacher_has_the_channels_of_every_call_in_the_order_of_the_rewritten_network() -> None:
    torch.manual_seed(0)
    model, batches = Repeated().eval(), [image[None] for image in images()]
    result = apply(model, [Unshare(), SepConvToPConv()], batches[0], Calibration(batches, fit=False, tuning=0))
    assert len(result.channel_orders) == 3
    teacher = _tapped_teacher(capture(model, batches[0]), result.record, ["block_1"], torch.device("cpu"))
    (output,), _ = teacher(batches[0])
    torch.testing.assert_close(output, model(batches[0]))
    weights = result.networks[2].program.state()
    assert torch.equal(teacher.state_dict()["body.stem.weight"], weights["stem.weight"])
    assert not torch.equal(weights["stem.weight"], model.stem.weight)


@pytest.mark.slow
def test_two_runs_are_the_same_and_another_seed_is_not() -> None:
    ends = []
    for seed in (0, 0, 1):
        result = rewritten(network())
        recover(result, network(), images(), **SHORT, seed=seed)
        ends.append(weights(result.model))
    assert same(ends[0], ends[1]) and not same(ends[0], ends[2])


@pytest.mark.parametrize(
    "options",
    [{"ema": 0.9}, {"mixed_precision": "bf16"}, {"clip": 0, "weight_decay": 0.01}, {"workers": 1}, {"features": 0}],
    ids=lambda options: next(iter(options)),
)
@pytest.mark.sample(1)
def test_options_train_too(options: dict[str, Any]) -> None:
    result = rewritten(network())
    assert recover(result, network(), images(), **SHORT, **options).improved


@pytest.mark.slow
def test_minutes() -> None:
    result = rewritten(network())
    recovery = recover(result, network(), images(), minutes=0.01, batch=2, validate_every=2)
    assert recovery.seconds >= 0.6 and recovery.steps > 0


@pytest.mark.slow
def test_batch_statistics_are_learned_where_wanted() -> None:
    result = rewritten(network())
    before = weights(result.model)
    recover(result, network(), pairs(), steps=12, batch=8, batch_statistics=True, validate_every=4, lr=1e-2)
    key = next(key for key in before if key.endswith("num_batches_tracked"))
    assert result.model.state_dict()[key] == (result.recoveries[0].best_step)


def test_frozen_parameters_stay() -> None:
    model = network()
    frozen = model.inc[0].weight.requires_grad_(False)  # type: ignore[index]
    result = rewritten(model)
    recover(result, model, images(), **SHORT)
    assert torch.equal(result.model.get_parameter("inc.0.weight"), frozen)
    assert not result.model.get_parameter("inc.0.weight").requires_grad
    whole = rewritten(network().requires_grad_(False))
    assert recover(whole, model, images(), **SHORT).improved
    assert not any(p.requires_grad for p in whole.model.parameters())


class Several(nn.Module):
    """Takes an image and a noise level by name; returns two images."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network()
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor, level: Tensor) -> dict[str, Tensor]:
        image = self.body(x * level[:, :, None, None])
        return {"image": image, "half": image[..., ::2, ::2]}


def test_several_inputs_and_outputs() -> None:
    model = Several().eval()
    result = apply(model, "mofa", {"x": torch.rand(1, 3, SIZE, SIZE), "level": torch.ones(1, 1)})
    data = [({"x": image, "level": torch.ones(1)}, image) for image in images()]
    unused = result.model.get_parameter("unused.weight").clone()
    assert recover(result, model, data, **SHORT, target=0.1).psnr_original is not None
    assert torch.equal(result.model.get_parameter("unused.weight"), unused)


WRONG: dict[str, tuple[Any, dict[str, Any], type[MofaError], str]] = {
    "option": ([], {"step": 3}, RecoveryError, "unknown-option"),
    "channels": ([torch.rand(4, 8, 8)] * 3, {}, RecoveryError, "wrong-input"),
    "no folder": ("nowhere", {}, DataError, "not-found"),
    "size": ([torch.rand(3, 1, 1)] * 3, {}, RecoveryError, "wrong-input"),
    "target": ([(torch.rand(3, 8, 8), torch.rand(1, 8, 8))] * 3, {}, RecoveryError, "wrong-output"),
    "diverges": (images(), {"lr": 1e30, "clip": 0, "steps": 3}, RecoveryError, "diverged"),
}


@pytest.mark.parametrize(("data", "options", "error", "code"), WRONG.values(), ids=WRONG.keys())
@pytest.mark.sample(6)
def test_errors(data: Any, options: dict[str, Any], error: type[MofaError], code: str) -> None:
    result = rewritten(network())
    before = weights(result.model)
    with raising(error, code):
        recover(result, network(), data, **options)
    assert same(weights(result.model), before)


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    result = rewritten(network())
    other = nn.Sequential(nn.Conv2d(3, 3, 1))
    with raising(RecoveryError, "other-original"):
        recover(result, other, images())
    with raising(BundleError, "other-original"):
        recover(result.save(tmp_path / "out"), other, images())
    with raising(BundleError, "not-found"):
        recover(tmp_path / "none", other, images())


@pytest.mark.slow
def test_a_bundle_with_other_source_is_left_as_it_is(tmp_path: Path) -> None:
    model, bundle = network(), tmp_path / "out"
    rewritten(model).save(bundle)
    source = bundle / files.SOURCE
    source.write_text(source.read_text().replace("return self.outc(", "return 2 * self.outc("))
    kept = (bundle / files.WEIGHTS).read_bytes()
    with raising(BundleError, "computes-else"):
        recover(bundle, model, images(), steps=1, batch=2)
    assert (bundle / files.WEIGHTS).read_bytes() == kept
