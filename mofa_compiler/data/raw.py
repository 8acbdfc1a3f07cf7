"""Raw photographs the way PMRID sees them: packed RGGB, noise of a sensor at an ISO, k-sigma transform.

The constants are those that the authors of PMRID (ECCV 2020) published with their benchmark. A raw value x is linear,
in [0, 1]; x·V is its digital number.
"""

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


V = 959.0  # digital numbers from black to white
ANCHOR_ISO = 1600.0
SCALE = 256.0  # of the network's input
WHITE_BALANCE = (2.0, 1.0, 1.7)
EXPOSURE = 0.6


def noise_parameters(iso: float) -> tuple[float, float]:
    """(K, S) at an ISO: the digital number V·x has variance K·(V·x) + S."""
    return 0.0005995267 * iso + 0.00868861, 7.11772e-7 * iso**2 + 6.514934e-4 * iso + 0.11492713


def add_raw_noise(clean: Tensor, iso: float, generator: torch.Generator) -> Tensor:
    """Linear raw values in [0, 1] (any shape) as a sensor gives them at an ISO, clipped to [0, 1]."""
    k, s = noise_parameters(iso)
    return add_noise(clean, s**0.5 / V, k / V, generator).clamp(0, 1)


def k_sigma(raw: Tensor, iso: float) -> Tensor:
    """The k-sigma transform: raw values (any shape) at `iso`, whose noise then depends on the value alone."""
    slope, offset = _k_sigma_line(iso)
    return raw * slope + offset


def inverse_k_sigma(raw: Tensor, iso: float) -> Tensor:
    """What `k_sigma` was given."""
    slope, offset = _k_sigma_line(iso)
    return (raw - offset) / slope


def levels(iso: float) -> tuple[float, float]:
    """Black and white in units of the network's input: where raw values 0 and 1 come to lie."""
    slope, offset = _k_sigma_line(iso)
    return offset * SCALE, (slope + offset) * SCALE


def pack_raw(image: Tensor) -> Tensor:
    """A photograph (3, 2h, 2w), sRGB in [0, 1], as the packed RGGB raw image (4, h, w), linear in [0, 1].

    sRGB is linearized with the power 2.2, exposure and white balance are undone, and of each 2x2 pixels the Bayer
    pattern keeps R, G, G and B.
    """
    linear = image.pow(2.2) * EXPOSURE / torch.tensor(WHITE_BALANCE).view(3, 1, 1)
    red, green, blue = linear
    return torch.stack([red[::2, ::2], green[::2, 1::2], green[1::2, ::2], blue[1::2, 1::2]])


def _k_sigma_line(iso: float) -> tuple[float, float]:
    """(slope, offset) of the k-sigma transform x -> slope·x + offset, from `iso` to the anchor ISO."""
    k, s = noise_parameters(iso)
    anchor_k, anchor_s = noise_parameters(ANCHOR_ISO)
    return anchor_k / k, (s / k**2 - anchor_s / anchor_k**2) * anchor_k / V
