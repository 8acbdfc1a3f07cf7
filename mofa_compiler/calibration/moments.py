"""Second moments of features and targets, gathered in streams: all that a least-squares fit needs to know of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

AT_ONCE = 1 << 22
"""Numbers of one chunk of features in float64 (32 MiB)"""


@dataclass
class Moments:
    """Sums over pixels of products of features and targets, in float64.

    One fit has `gram` (F, F), `cross` (F, O) and `energy` (O,), the sum of squared targets; several at once, one for
    each channel, have (C, F, F), (C, F, 1) and (C, 1). The last feature is the constant 1. `count` is that of pixels.
    """

    gram: Tensor
    cross: Tensor
    energy: Tensor
    count: int = 0

    @classmethod
    def of(cls, features: Tensor, targets: Tensor) -> Moments:
        """Of features (..., n, F) and targets (..., n, O)."""
        rows = max(1, AT_ONCE // max(1, features.numel() // features.shape[-2]))
        parts = [
            cls(x.mT @ x, x.mT @ y, y.square().sum(-2), x.shape[-2])
            for x, y in zip(torch.split(features, rows, -2), torch.split(targets, rows, -2), strict=True)
        ]
        return cls.sum(parts)

    @classmethod
    def sum(cls, parts: Sequence[Moments]) -> Moments:
        """Of several sets of pixels together."""
        first, *others = parts
        for other in others:
            sums = (first.gram + other.gram, first.cross + other.cross, first.energy + other.energy)
            first = cls(*sums, first.count + other.count)
        return first

    @property
    def is_finite(self) -> bool:
        return all(bool(torch.isfinite(t).all()) for t in (self.gram, self.cross, self.energy))

    def through(self, map_: Tensor) -> Moments:
        """The moments of map_ @ features, (G, F); its last row must be the constant."""
        return Moments(map_ @ self.gram @ map_.T, map_ @ self.cross, self.energy, self.count)

    def error(self, solution: Tensor) -> float:
        """Sum of squared differences between targets and features @ solution, (..., F, O)."""
        explained = ((self.gram @ solution - 2 * self.cross) * solution).sum()
        return max(0.0, float(self.energy.sum() + explained))
