"""Photographs that ship inside scikit-image and scikit-learn, dead leaves images, noise, and PSNR.

Nothing is downloaded. Every image is a float32 tensor (3, H, W), sRGB, in [0, 1].
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
from skimage import data
from sklearn.datasets import load_sample_image
from torch import Tensor

TRAINING = ("chelsea", "rocket", "motorcycle_left", "china", "flower")
# motorcycle_right is the second view of the scene of motorcycle_left: unseen pixels, but not an unseen scene.
HELD_OUT = ("astronaut", "coffee", "motorcycle_right")


@cache
def _pixels(name: str) -> np.ndarray:
    """(H, W, 3) uint8."""
    if name in ("china", "flower"):
        return np.asarray(load_sample_image(f"{name}.jpg"))
    if name in ("motorcycle_left", "motorcycle_right"):
        left, right, _ = data.stereo_motorcycle()  # type: ignore[no-untyped-call]
        return np.asarray(left if name == "motorcycle_left" else right)
    if name in TRAINING + HELD_OUT:
        return np.asarray(getattr(data, name)())
    raise ValueError(f"unknown photograph {name!r}; known: {', '.join(TRAINING + HELD_OUT)}")


def photograph(name: str) -> Tensor:
    """The photograph (3, H, W), float32 sRGB in [0, 1]; a fresh tensor at each call."""
    return torch.from_numpy(_pixels(name).copy()).permute(2, 0, 1).contiguous().float() / 255


def dead_leaves(size: int, generator: torch.Generator, smallest: float = 2.0, largest: float = 0.5) -> Tensor:
    """A dead leaves image (Lee, Mumford and Huang, 2001): opaque random disks that occlude each other.

    Radii follow the scale-invariant density 1/r^3 between `smallest` (pixels) and `largest` (a fraction of `size`);
    colours are uniform, centres too. Leaves fall in front to back order until every pixel is covered, at twice the
    resolution, and are then averaged 2x2: that antialiases their edges.

    Returns (3, `size`, `size`), float32 in [0, 1], determined by the state of `generator`.
    """
    side = 2 * size
    low, high = 2 * smallest, max(largest * side, 2 * smallest + 1)
    image = torch.zeros(3, side, side)
    uncovered = torch.ones(side, side, dtype=torch.bool)
    coordinates = torch.arange(side, dtype=torch.float32)
    while uncovered.any():
        for u, x, y, *colour in torch.rand(256, 6, generator=generator).tolist():
            radius = (low**-2 - u * (low**-2 - high**-2)) ** -0.5  # the inverse of the distribution function
            x, y = (t * (side + 2 * high) - high for t in (x, y))
            left, top = (max(0, math.floor(t - radius)) for t in (x, y))
            right, bottom = (min(side, math.ceil(t + radius) + 1) for t in (x, y))
            if left >= right or top >= bottom:
                continue
            box = (slice(top, bottom), slice(left, right))
            squares = (coordinates[box[0], None] - y) ** 2 + (coordinates[box[1]] - x) ** 2
            leaf = uncovered[box] & (squares <= radius**2)
            image[:, *box][:, leaf] = torch.tensor(colour)[:, None]
            uncovered[box] &= ~leaf
    return image.view(3, size, 2, size, 2).mean((2, 4))


def add_noise(image: Tensor, gaussian: float, poisson: float, generator: torch.Generator) -> Tensor:
    """Poisson-Gaussian noise, not clipped: x becomes a sample of mean x and variance `gaussian`² + `poisson`·x.

    `gaussian` is the standard deviation of the read noise and `poisson` the gain of the shot noise (the value of one
    photon), both in units of the image, any shape, whose values must be >= 0 where `poisson` is not 0.
    """
    shots = poisson * torch.poisson(image / poisson, generator) if poisson else image
    return shots + gaussian * torch.randn(image.shape, generator=generator)


def psnr(a: Tensor, b: Tensor, peak: float = 1.0) -> float:
    """Peak signal-to-noise ratio of two images of the same shape, in dB; infinite if they are equal."""
    if a.shape != b.shape:
        raise ValueError(f"psnr of different shapes: {tuple(a.shape)} and {tuple(b.shape)}")
    error = (a.double() - b.double()).square().mean().item()
    return 10 * math.log10(peak**2 / error) if error else math.inf
