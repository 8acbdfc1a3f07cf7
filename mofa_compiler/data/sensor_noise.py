"""Noise of sensors."""

from __future__ import annotations

import torch
from torch import Tensor


def add_noise(image: Tensor, gaussian: float, poisson: float, generator: torch.Generator) -> Tensor:
    """Poisson-Gaussian noise, not clipped: x becomes a sample of mean x and variance `gaussian`² + `poisson`·x.

    `gaussian` is the standard deviation of the read noise and `poisson` the gain of the shot noise (the value of one
    photon), both in units of the image, any shape, whose values must be >= 0 where `poisson` is not 0.
    """
    shots = poisson * torch.poisson(image / poisson, generator) if poisson else image
    return shots + gaussian * torch.randn(image.shape, generator=generator)
