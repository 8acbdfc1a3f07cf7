"""The denoiser of shared/data/n2n_gaussian.pt: a dense U-Net whose inner blocks are called several times."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

WEIGHTS = Path(__file__).parents[3] / "shared/data/n2n_gaussian.pt"


class Noise2Noise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self._block1 = nn.Sequential(_conv(3, 48), _relu(), _conv(48, 48), _relu(), nn.MaxPool2d(2))
        self._block2 = nn.Sequential(_conv(48, 48), _relu(), nn.MaxPool2d(2))
        self._block3 = nn.Sequential(_conv(48, 48), _relu(), _up(48))
        self._block4 = nn.Sequential(_conv(96, 96), _relu(), _conv(96, 96), _relu(), _up(96))
        self._block5 = nn.Sequential(_conv(144, 96), _relu(), _conv(96, 96), _relu(), _up(96))
        last = [_conv(99, 64), _relu(), _conv(64, 32), _relu(), _conv(32, 3), nn.LeakyReLU(0.1)]
        self._block6 = nn.Sequential(*last)

    def forward(self, x: Tensor) -> Tensor:
        pooled = [self._block1(x)]
        for _ in range(4):
            pooled.append(self._block2(pooled[-1]))
        y = self._block3(pooled[4])
        y = self._block4(torch.cat([y, pooled[3]], 1))
        for skip in reversed(pooled[:3]):
            y = self._block5(torch.cat([y, skip], 1))
        return self._block6(torch.cat([y, x], 1))  # type: ignore[no-any-return]


def trained() -> Noise2Noise:
    """With the published weights."""
    model = Noise2Noise()
    model.load_state_dict(torch.load(WEIGHTS, "cpu", weights_only=True))
    return model.eval()


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def _up(channels: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(channels, channels, 3, stride=2, padding=1, output_padding=1)


def _relu() -> nn.ReLU:
    return nn.ReLU(inplace=True)
