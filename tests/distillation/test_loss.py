"""The loss in its units, and PSNR."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mofa_compiler.base.errors import RecoveryError
from mofa_compiler.distillation.batches import Batch
from mofa_compiler.distillation.loss import Loss, Scales, check_targets
from mofa_compiler.distillation.options import Options
from mofa_compiler.numerics.psnr import psnrs, range_of
from tests.raising import raising


def batch(x: Tensor, *targets: Tensor) -> Batch:
    return Batch((x,), {}, targets, None)


def test_units_and_weights() -> None:
    x, target = torch.rand(4, 1, 8, 8), torch.rand(4, 1, 8, 8)
    feature, dead = 3 * torch.randn(4, 2, 4, 4), torch.zeros(4, 2, 4, 4)
    original = [target + 0.5], [feature, dead]
    scales = Scales.measure(original, batch(x, target))
    assert scales.outputs == pytest.approx((0.25,))
    assert scales.features == pytest.approx((float(feature.var(correction=0)), 0.0))
    rewritten = [target + 1.5], [torch.full_like(feature, float(feature.mean())), dead + 7]

    def loss(data: Batch, **weights: float) -> float:
        return float(Loss(Options(**weights), scales)(rewritten, original, data))

    pair = batch(x, target)
    assert loss(pair, features=2, output=0, target=0) == pytest.approx(2, rel=1e-5)
    assert loss(pair, features=0, output=2, target=0) == pytest.approx(2 * 1 / 0.25, rel=1e-5)
    assert loss(pair, features=0, output=0, target=2) == pytest.approx(2 * 2.25 / 0.25, rel=1e-5)
    assert loss(pair) == pytest.approx(1 + 4 + 9, rel=1e-5)
    assert loss(batch(x)) == pytest.approx(1 + 4, rel=1e-5)


def test_without_a_truth_the_unit_is_what_the_original_changes() -> None:
    x, other = torch.rand(2, 3, 8, 8), torch.randn(2, 1, 8, 8)
    assert Scales.measure(([x + 2], []), batch(x)).outputs == pytest.approx((4.0,))
    assert Scales.measure(([other], []), batch(x)).outputs == pytest.approx((float(other.var(correction=0)),))
    assert Scales.measure(([torch.zeros(2, 1)], []), batch(x)).outputs == (1.0,)


def test_psnr() -> None:
    wanted = torch.rand(3, 1, 8, 8)
    got = wanted + torch.tensor([0.1, 0.01, 0.0]).view(3, 1, 1, 1)
    assert psnrs(got, wanted, None, 1.0).tolist() == pytest.approx([20, 40, 200], abs=1e-3)
    levels = torch.tensor([[10.0, 20.0]])
    near, far = torch.full((1, 1, 2, 2), 15.0), torch.full((1, 1, 2, 2), 99.0)
    assert psnrs(near + 1, near, levels, 5.0).tolist() == pytest.approx([20.0])
    assert psnrs(far, far - 79, levels, 1.0).tolist() == [200.0]  # both white
    assert range_of([torch.tensor([0.0, 0.5])]) == 1 and range_of([torch.tensor([-1.0, 9.0])]) == 10
    assert range_of([torch.tensor([3.0, 3.0])]) == 1


def test_targets_must_be_of_the_outputs() -> None:
    x = torch.rand(1, 3, 8, 8)
    check_targets([x, x], batch(x, x))
    with raising(RecoveryError, "wrong-output", "3x16x16"):
        check_targets([x], batch(x, torch.rand(1, 3, 16, 16)))
    with raising(RecoveryError, "wrong-output"):
        check_targets([x], batch(x, x, x))
