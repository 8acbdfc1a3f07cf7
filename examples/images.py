"""Photographs that ship inside scikit-image and scikit-learn, and PSNR.

Nothing is downloaded. Every image is a float32 tensor (3, H, W), sRGB, in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from skimage import data
from torch import Tensor

TRAINING = ("chelsea", "rocket", "motorcycle_left", "china", "flower")
# motorcycle_right is the second view of the scene of motorcycle_left: unseen pixels, but not an unseen scene.
HELD_OUT = ("astronaut", "coffee", "motorcycle_right")


@cache
def _pixels(name: str) -> np.ndarray:
    """(H, W, 3) uint8."""
    if name in ("china", "flower"):
        from sklearn.datasets import load_sample_image  # which takes as long to import as torch

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


def write_photographs(names: Sequence[str], folder: Path) -> None:
    """The photographs as files, float32 sRGB in [0, 1], for what reads a folder of images."""
    for name in names:
        np.save(folder / f"{name}.npy", photograph(name).numpy())


def psnr(a: Tensor, b: Tensor, peak: float = 1.0) -> float:
    """Peak signal-to-noise ratio of two images of the same shape, in dB; infinite if they are equal."""
    if a.shape != b.shape:
        raise ValueError(f"psnr of different shapes: {tuple(a.shape)} and {tuple(b.shape)}")
    error = (a.double() - b.double()).square().mean().item()
    return 10 * math.log10(peak**2 / error) if error else math.inf
