"""Raw photographs the way PMRID sees them: packed RGGB, noise of a sensor at an ISO, k-sigma transform.

The constants are those that the authors of PMRID (ECCV 2020) published with their benchmark. A raw value x is linear,
in [0, 1]; x·V is its digital number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

import torch
from torch import Tensor, nn

from images import HELD_OUT, photograph, psnr
from mofa_compiler.data.raw import SCALE, add_raw_noise, inverse_k_sigma, k_sigma, pack_raw

MULTIPLE = 32  # packed images are cropped to multiples of this


def cropped(image: Tensor) -> Tensor:
    """A photograph (3, H, W) cropped at its right and bottom: packed, its sides are multiples of `MULTIPLE`."""
    height, width = (side // (2 * MULTIPLE) * 2 * MULTIPLE for side in image.shape[1:])
    return image[:, :height, :width]


@dataclass(frozen=True)
class RawCase:
    """One noisy raw photograph; the images are (1, 4, H, W) float32, H and W multiples of `MULTIPLE`."""

    name: str
    iso: float
    clean: Tensor  # linear, in [0, 1]
    noisy: Tensor  # linear, in [0, 1]
    network_input: Tensor  # noisy after the k-sigma transform, times SCALE

    def restore(self, output: Tensor) -> Tensor:
        """The network's output (1, 4, H, W) as a linear raw image in [0, 1]."""
        return inverse_k_sigma(output / SCALE, self.iso).clamp(0, 1)


def raw_cases(names: Sequence[str] = HELD_OUT, isos: Sequence[float] = (3200, 6400), seed: int = 0) -> list[RawCase]:
    """One case per photograph of `names` and ISO; the noise is determined by `seed`."""
    generator = torch.Generator().manual_seed(seed)
    cases = []
    for name in names:
        clean = pack_raw(cropped(photograph(name)))[None]
        for iso in isos:
            noisy = add_raw_noise(clean, iso, generator)
            cases.append(RawCase(name, iso, clean, noisy, k_sigma(noisy, iso) * SCALE))
    return cases


def raw_psnr(network: nn.Module, cases: Sequence[RawCase]) -> tuple[float, float]:
    """(PSNR of the noisy images, PSNR of the restored ones) in dB, peak 1 in the linear raw domain, mean over `cases`.

    `network` runs on the CPU in the mode and precision that it is in, so call `network.eval()` first.
    """
    with torch.no_grad():
        restored = [psnr(case.restore(network(case.network_input)), case.clean) for case in cases]
    return mean(psnr(case.noisy, case.clean) for case in cases), mean(restored)
