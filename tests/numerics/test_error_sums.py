from __future__ import annotations

import math

import pytest
import torch

from mofa_compiler.numerics.error_sums import Figures


def of(*batches: tuple[torch.Tensor, torch.Tensor]) -> Figures:
    figures = Figures()
    for expected, got in batches:
        figures.add(expected, got)
    return figures


def test_batches_count_by_their_values_not_each_the_same():
    expected, got = torch.rand(10), torch.rand(10)
    expected[:8] *= 1e-3
    parts = [(expected[:8], got[:8]), (expected[8:], got[8:])]
    whole, split = of((expected, got)), of(*parts)
    assert split.relative_error == pytest.approx(whole.relative_error, rel=1e-12)
    assert split.psnr(split.peak) == pytest.approx(whole.psnr(whole.peak), rel=1e-12)
    ratios = [float((b - a).norm() / a.norm()) for a, b in parts]
    assert abs(sum(ratios) / 2 - split.relative_error) > 1


def test_known_values():
    figures = of((torch.tensor([3.0, -4.0]), torch.tensor([3.0, -3.5])))
    assert figures.relative_error == pytest.approx(0.1)
    assert figures.peak == 7
    assert figures.psnr(1.0) == pytest.approx(10 * math.log10(1 / 0.125))


def test_agreement_and_its_limits():
    same = of((torch.ones(3), torch.ones(3)))
    assert (same.relative_error, same.psnr(1)) == (0, math.inf)
    assert of((torch.zeros(2), torch.ones(2))).psnr(0) == -math.inf
    assert of((torch.ones(2), torch.ones(3))).relative_error == math.inf
    assert of((torch.ones(2), torch.full((2,), math.inf))).psnr(1) == -math.inf
    assert math.isnan(of((torch.ones(2), torch.full((2,), math.nan))).relative_error)
    assert of((torch.empty(0), torch.empty(0))).relative_error == 0
