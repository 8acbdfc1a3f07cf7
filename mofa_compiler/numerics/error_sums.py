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
    not_finite: int = 0
    """How many expected values are none that can be compared; they have to be the same, and count no further"""
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
        finite = expected.isfinite()
        if not bool(finite.all()):
            self.not_finite += int((~finite).sum())
            if not torch.equal(_marks(expected), _marks(got)):
                self.error = math.inf
            expected, got = expected[finite], got[finite]
            if not expected.numel():
                return
        self.error += float((got - expected).square().sum())
        self.energy += float(expected.square().sum())
        self.count += expected.numel()
        self.low = min(self.low, float(expected.min()))
        self.high = max(self.high, float(expected.max()))

    @property
    def is_comparable(self) -> bool:
        """Whether there are finite values on both sides, and others, if at all, in the same places."""
        return math.isfinite(self.error) and (self.count > 0 or not self.not_finite)

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


def _marks(values: Tensor) -> Tensor:
    """What is not finite as it is, NaN as a number of its own, and all that is finite as 0."""
    return torch.where(values.isfinite(), 0.0, values).nan_to_num(nan=1.0, posinf=2.0, neginf=3.0)
