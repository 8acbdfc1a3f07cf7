"""Images without photographs: dead leaves, whose statistics are close to those of natural images."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def dead_leaves(
    size: int, channels: int, generator: torch.Generator, smallest: float = 2.0, largest: float = 0.5
) -> Tensor:
    """A dead leaves image (Lee, Mumford and Huang, 2001): opaque random disks that occlude each other.

    Radii follow the scale-invariant density 1/r^3 between `smallest` (pixels) and `largest` (a fraction of `size`);
    colours are uniform, centres too. Leaves fall in front to back order until every pixel is covered, at twice the
    resolution, and are then averaged 2x2: that antialiases their edges.

    Returns (`channels`, `size`, `size`), float32 in [0, 1], determined by the state of `generator`.
    """
    side = 2 * size
    low, high = 2 * smallest, max(largest * side, 2 * smallest + 1)
    image = torch.zeros(channels, side, side)
    uncovered = torch.ones(side, side, dtype=torch.bool)
    coordinates = torch.arange(side, dtype=torch.float32)
    while uncovered.any():
        for u, x, y, *colour in torch.rand(256, 3 + channels, generator=generator).tolist():
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
    return image.view(channels, size, 2, size, 2).mean((2, 4))
