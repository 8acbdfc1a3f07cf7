"""Images without photographs: textured dead leaves, whose statistics are close to those of natural images.

Their constants were chosen by how well linear fits of PMRID's layers hold on photographs (astronaut and coffee; five
others): the squared error is 1.6 and 1.5 times that of a fit on these very photographs, just as it is (1.4; 1.5) for a
fit on other photographs. Disks of one plain colour, uniform and independent in each channel, come to 2.4 on the former.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

SMALLEST = (4.0, 32.0)  # pixels: the range of the smallest radius, which differs between images as their distance does
LARGEST = 2.0  # largest radius, in sides of the image
CORRELATION = 0.7  # of a leaf's colours between channels
EXPOSURE = (-0.7, 0.8)  # mean and standard deviation, over images, of an image's mean logit
CONTRAST = 1.5  # standard deviation of a leaf's mean logit within an image
TEXTURE = 0.3  # mean standard deviation of the logit within a leaf: many are smooth, few are rough
SHADING = 1.0  # standard deviation of the change of the logit from one side of the image to the other
_AT_ONCE = 512


def dead_leaves(size: int, channels: int, generator: torch.Generator) -> Tensor:
    """A dead leaves image (Lee, Mumford and Huang, 2001), its leaves textured (as Achddou et al., 2021) and shaded.

    Opaque disks occlude each other; radii follow the scale-invariant density 1/r^3. A leaf's colours are normal
    and correlated between channels, its texture is a piece of 1/f noise, its shade a slope; their sum is
    squashed to [0, 1] by the logistic function. All is made at twice the resolution and averaged 2x2, which antialiases
    the edges.

    Returns (`channels`, `size`, `size`), float32 in [0, 1], determined by the state of `generator`.
    """
    side = 2 * size
    low, high = (math.log(radius) for radius in SMALLEST)
    smallest = 2 * math.exp(low + (high - low) * float(torch.rand((), generator=generator)))
    leaf = _fallen(side, smallest, max(LARGEST * side, 2 * smallest), generator)
    count = int(leaf.max()) + 1

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    exposure = EXPOSURE[0] + EXPOSURE[1] * normal()
    shared, own = CORRELATION**0.5 * normal(1, count), (1 - CORRELATION) ** 0.5 * normal(channels, count)
    colours = exposure + CONTRAST * (shared + own)
    rough = TEXTURE * normal(count).square()
    slopes = SHADING / side * normal(2, count)
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    shifts = torch.randint(side, (2, count), generator=generator)[:, leaf]  # the noise is periodic
    noise = _pink_noise(side, generator)[(rows + shifts[0]) % side, (columns + shifts[1]) % side]
    shade = slopes[0][leaf] * (rows - size) + slopes[1][leaf] * (columns - size)
    relief = rough[leaf] * noise + shade
    image = torch.stack([torch.sigmoid(colour[leaf] + relief) for colour in colours])
    return image.view(channels, size, 2, size, 2).mean((2, 4))


def _fallen(side: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """(`side`, `side`): which leaf is seen at each pixel, numbered from 0 without gaps; radii `low` to `high`.

    Leaves fall in front to back order until all is covered. Only those that touch the image are drawn: the number of
    centres from which a disk does so grows with (side + 2 r)^2.
    """
    radii = np.geomspace(low, high, 1024)
    distribution = np.cumsum(radii**-2 * (side + 2 * radii) ** 2)  # r^-3 dr on a logarithmic grid is r^-2
    seen = np.full((side, side), -1, dtype=np.int64)
    pixels = np.arange(side, dtype=np.float32)
    fallen = 0
    while (seen < 0).any():
        draws = torch.rand((_AT_ONCE, 3), generator=generator, dtype=torch.float64).numpy()
        radius = np.interp(draws[:, 0] * distribution[-1], distribution, radii)
        centres = draws[:, 1:] * (side + 2 * radius)[:, None] - radius[:, None]
        first = np.ceil(centres - radius[:, None]).clip(0, side).astype(int)
        last = np.floor(centres + radius[:, None] + 1).clip(0, side).astype(int)
        boxes: Any = (array.tolist() for array in (first, last, centres, radius))
        for (top, left), (bottom, right), (y, x), r in zip(*boxes, strict=True):
            box = seen[top:bottom, left:right]
            free = box < 0
            if free.any():
                free &= ((pixels[top:bottom] - y) ** 2)[:, None] + (pixels[left:right] - x) ** 2 <= r * r
                box[free] = fallen
            fallen += 1
    return torch.from_numpy(np.unique(seen, return_inverse=True)[1].reshape(side, side))


def _pink_noise(side: int, generator: torch.Generator) -> Tensor:
    """(`side`, `side`) periodic noise of amplitude 1/f, mean 0 and variance 1."""
    spectrum = torch.fft.rfft2(torch.randn((side, side), generator=generator))
    frequency = torch.hypot(torch.fft.fftfreq(side)[:, None], torch.fft.rfftfreq(side)[None])
    frequency[0, 0] = math.inf
    noise: Tensor = torch.fft.irfft2(spectrum / frequency, (side, side))
    return noise / noise.std()
