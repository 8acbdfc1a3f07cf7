"""Dead leaves: reproducible, and near to photographs in what was aimed at."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from images import TRAINING, photograph
from mofa_compiler.data import dead_leaves


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(size=st.integers(1, 40), channels=st.integers(1, 7), seed=st.integers(0, 2**32))
def test_an_image(size: int, channels: int, seed: int):
    image = dead_leaves(size, channels, seeded(seed))
    assert (image.shape, image.dtype) == ((channels, size, size), torch.float32)
    assert 0 <= float(image.min()) <= float(image.max()) <= 1
    assert torch.equal(image, dead_leaves(size, channels, seeded(seed)))


def test_images_differ():
    source = seeded(0)
    first, second = dead_leaves(16, 1, source), dead_leaves(16, 1, source)
    assert float((first - second).abs().mean()) > 0.01


def correlation(images: torch.Tensor) -> float:
    """Between the first two channels inside an image; (N, C, H, W)."""
    centred = images.flatten(2) - images.flatten(2).mean(2, keepdim=True)
    a, b = centred[:, 0], centred[:, 1]
    return float((a * b).sum() / (a.square().sum() * b.square().sum()).sqrt())


def falloff(images: torch.Tensor) -> float:
    """Octaves that the power of the mean over channels loses from one octave of frequency to the next."""
    side = images.shape[-1]
    window = torch.hann_window(side)
    grey = images.mean(1) - images.mean((1, 2, 3))[:, None, None]
    power = torch.fft.rfft2(grey * window * window[:, None]).abs().square().mean(0)
    frequency = side * torch.hypot(torch.fft.fftfreq(side)[:, None], torch.fft.rfftfreq(side)[None])
    octaves = torch.stack([power[(frequency >= f) & (frequency < 2 * f)].mean().log2() for f in (4, 8, 16, 32)])
    return float(-octaves.diff().mean())


def test_statistics_are_those_of_photographs():
    leaves = torch.stack([dead_leaves(128, 3, seeded(seed)) for seed in range(24)])
    crops = torch.cat(
        [photograph(name)[:, :384, :384].unfold(1, 128, 128).unfold(2, 128, 128).flatten(1, 2) for name in TRAINING],
        dim=1,
    ).transpose(0, 1)
    assert 0.5 < correlation(leaves) < 0.95
    assert correlation(leaves) == pytest.approx(correlation(crops), abs=0.25)
    assert 2 < falloff(leaves) < 3.2  # the power of natural images falls by 1/f²
    assert falloff(leaves) == pytest.approx(falloff(crops), abs=0.6)
    assert 0.2 < float(leaves.median()) < 0.5
    assert float((leaves < 0.1).float().mean()) > 0.05 < float((leaves > 0.8).float().mean())
