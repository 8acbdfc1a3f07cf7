"""A plain dense U-Net (Ronneberger et al., MICCAI 2015) with batch normalization and skips by concatenation."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DoubleConv(nn.Sequential):
    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class Down(nn.Sequential):
    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(nn.MaxPool2d(2), DoubleConv(in_channels, out_channels))


class Up(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, bilinear: bool):
        super().__init__()
        self.up: nn.Module
        if bilinear:
            self.up = nn.Sequential(
                nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
                nn.Conv2d(in_channels, in_channels // 2, 3, padding=1),
            )
        else:
            self.up = nn.ConvTranspose2d(in_channels, in_channels // 2, 2, 2)
        self.conv = DoubleConv(in_channels, out_channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = self.up(x)
        height, width = skip.size(2) - x.size(2), skip.size(3) - x.size(3)
        x = F.pad(x, [width // 2, width - width // 2, height // 2, height - height // 2])
        return self.conv(torch.cat([skip, x], dim=1))


class UNet(nn.Module):
    """Input (N, `in_channels`, H, W), output (N, `out_channels`, H, W); `depth` halvings, any size."""

    def __init__(
        self, in_channels: int = 3, out_channels: int = 3, width: int = 16, depth: int = 4, bilinear: bool = False
    ):
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        self.inc = DoubleConv(in_channels, width)
        self.downs = nn.ModuleList(Down(a, b) for a, b in itertools.pairwise(widths))
        self.ups = nn.ModuleList(
            Up(b, a, bilinear) for a, b in zip(reversed(widths[:-1]), reversed(widths[1:]), strict=True)
        )
        self.outc = nn.Conv2d(width, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = [self.inc(x)]
        for down in self.downs:
            skips.append(down(skips[-1]))
        x = skips.pop()
        for up in self.ups:
            x = up(x, skips.pop())
        return self.outc(x)
