"""Steps of kernels are orthogonal and of the size asked for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mofa_compiler.calibration.orthogonal import Orthogonal, orthogonal


@pytest.mark.parametrize("shape", [(8, 8), (8, 50), (50, 8)])
def test_singular_values_come_near_one(shape: tuple[int, int]) -> None:
    left, right = (torch.linalg.qr(torch.randn(n, 8, generator=torch.Generator().manual_seed(n)))[0] for n in shape)
    matrix = left * torch.linspace(0.3, 1, 8) @ right.T
    found = left.T @ orthogonal(matrix) @ right
    assert found.shape == (8, 8)
    assert float(found.diagonal().min()) > 0.4
    assert float(found.diagonal().max()) < 1.5
    assert torch.allclose(found, torch.diag(found.diagonal()), atol=1e-5)


def test_a_step_is_as_large_as_the_rate() -> None:
    kernel = nn.Parameter(torch.zeros(8, 8, 3, 3))
    kernel.grad = torch.randn(kernel.shape, generator=torch.Generator().manual_seed(0))
    unused = nn.Parameter(torch.ones(8, 8))
    Orthogonal([{"params": [kernel, unused], "lr": 0.5}]).step()
    assert float(kernel.detach().square().mean().sqrt()) == pytest.approx(0.5, rel=1e-4)
    assert float((kernel.detach() * kernel.grad).sum()) < 0
    assert bool((unused == 1).all())
