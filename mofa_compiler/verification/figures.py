"""Relative error and PSNR over any number of batches, from sums that are kept as they pass by."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Figures:
    """How far outputs are from the expected ones, over all batches that were added.

    Errors are those of all values together, not means over batches: a batch that is nearly zero weighs little.
    """

    error: float = 0.0
    """Sum of squared differences"""
    energy: float = 0.0
    """Sum of squared expected values"""
    count: int = 0
    low: float = math.inf
    high: float = -math.inf

    def add(self, expected: Tensor, got: Tensor) -> None:
        """Take in one batch, both outputs flattened; of another length, they are as far apart as can be."""
        if expected.shape != got.shape:
            self.error = math.inf
            return
        if not expected.numel():
            return
        expected, got = expected.double(), got.double()
        self.error += float((got - expected).square().sum())
        self.energy += float(expected.square().sum())
        self.count += expected.numel()
        self.low = min(self.low, float(expected.min()))
        self.high = max(self.high, float(expected.max()))

    @property
    def relative_error(self) -> float:
        """||got - expected|| / ||expected||, 0 where they agree."""
        if self.error == 0:
            return 0.0
        return math.sqrt(self.error) / max(math.sqrt(self.energy), torch.finfo(torch.float64).tiny)

    def psnr(self, peak: float) -> float:
        """Peak signal-to-noise ratio in dB; infinite where they agree."""
        if self.error == 0:
            return math.inf
        ratio = peak**2 * self.count / self.error
        return -math.inf if ratio == 0 else 10 * math.log10(ratio)

    @property
    def peak(self) -> float:
        """Range of the expected values."""
        return max(self.high - self.low, 0.0)
