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

from images import HELD_OUT, add_noise, photograph, psnr

V = 959.0  # digital numbers from black to white
ANCHOR_ISO = 1600.0
SCALE = 256.0  # of the network's input
MULTIPLE = 32  # packed images are cropped to multiples of this
WHITE_BALANCE = (2.0, 1.0, 1.7)
EXPOSURE = 0.6


def noise_parameters(iso: float) -> tuple[float, float]:
    """(K, S) at an ISO: the digital number V·x has variance K·(V·x) + S."""
    return 0.0005995267 * iso + 0.00868861, 7.11772e-7 * iso**2 + 6.514934e-4 * iso + 0.11492713


def _k_sigma_line(iso: float) -> tuple[float, float]:
    """(slope, offset) of the k-sigma transform x -> slope·x + offset, from `iso` to the anchor ISO."""
    k, s = noise_parameters(iso)
    anchor_k, anchor_s = noise_parameters(ANCHOR_ISO)
    return anchor_k / k, (s / k**2 - anchor_s / anchor_k**2) * anchor_k / V


def k_sigma(raw: Tensor, iso: float) -> Tensor:
    """The k-sigma transform: raw values (any shape) at `iso`, whose noise then depends on the value alone."""
    slope, offset = _k_sigma_line(iso)
    return raw * slope + offset


def inverse_k_sigma(raw: Tensor, iso: float) -> Tensor:
    slope, offset = _k_sigma_line(iso)
    return (raw - offset) / slope


def pack_raw(image: Tensor) -> Tensor:
    """A photograph (3, H, W), sRGB in [0, 1], as the packed RGGB raw image (4, ~H/2, ~W/2), linear in [0, 1].

    sRGB is linearized with the power 2.2, exposure and white balance are undone, and of each 2x2 pixels the Bayer
    pattern keeps R, G, G and B. The bottom and right are cropped to make the result's sides multiples of
    `MULTIPLE`.
    """
    height, width = (side // (2 * MULTIPLE) * 2 * MULTIPLE for side in image.shape[1:])
    linear = image[:, :height, :width].pow(2.2) * EXPOSURE / torch.tensor(WHITE_BALANCE).view(3, 1, 1)
    red, green, blue = linear
    return torch.stack([red[::2, ::2], green[::2, 1::2], green[1::2, ::2], blue[1::2, 1::2]])


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
        clean = pack_raw(photograph(name))[None]
        for iso in isos:
            k, s = noise_parameters(iso)
            noisy = add_noise(clean, s**0.5 / V, k / V, generator).clamp(0, 1)
            cases.append(RawCase(name, iso, clean, noisy, k_sigma(noisy, iso) * SCALE))
    return cases


def raw_psnr(network: nn.Module, cases: Sequence[RawCase]) -> tuple[float, float]:
    """(PSNR of the noisy images, PSNR of the restored ones) in dB, peak 1 in the linear raw domain, mean over `cases`.

    `network` runs on the CPU in the mode and precision that it is in, so call `network.eval()` first.
    """
    with torch.no_grad():
        restored = [psnr(case.restore(network(case.network_input)), case.clean) for case in cases]
    return mean(psnr(case.noisy, case.clean) for case in cases), mean(restored)
