"""Peak signal-to-noise ratio (PSNR) of examples."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..data.degradations import restore


def psnrs(output: Tensor, wanted: Tensor, levels: Tensor | None, peak: float) -> Tensor:
    """PSNR of every example of a batch in dB, float64; with levels, of values brought back to [0, 1] and clipped.

    At most 200 dB, so that means stay finite where outputs agree.
    """
    got, wanted = output.double(), wanted.double()
    if levels is not None:
        got, wanted, peak = restore(got, levels), restore(wanted, levels), 1.0
    errors = (got - wanted).square().flatten(1).mean(1)
    return 10 * torch.log10(peak**2 / errors.clamp_min(peak**2 * 1e-20))


def range_of(images: Sequence[Tensor]) -> float:
    """The peak for PSNR: 1 for values in [0, 1], else the range of the values."""
    low, high = min(float(i.min()) for i in images), max(float(i.max()) for i in images)
    return 1.0 if low >= 0 and high <= 1 else high - low or 1.0
