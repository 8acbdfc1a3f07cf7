"""Small U-Nets as they are written for phones and for speech: of MobileNetV2's blocks, and along one axis."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .torchvision import Conv2dNormActivation, InvertedResidual


class UpBlock(nn.Module):
    """Bilinear upsampling, concatenation, an inverted residual block."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int):
        super().__init__()
        self.block = InvertedResidual(in_channels + skip_channels, out_channels, 1, 2)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return self.block(torch.cat([x, skip], dim=1))


class CamNet(nn.Module):
    """A U-Net of inverted residual blocks: `first` of them at full resolution, one strided one between the levels."""

    def __init__(self, first: int = 1, width: int = 8, *, stem: bool = True, separate_up: bool = False):
        super().__init__()
        a, b, c = width, 2 * width, 4 * width
        self.stem = Conv2dNormActivation(3, a, 3) if stem else nn.Identity()
        opening = InvertedResidual(a if stem else 3, a, 1, 2)
        more = [InvertedResidual(a, a, 1, 2) for _ in range(first - 1)]
        self.enc1 = nn.Sequential(opening, *more) if more else opening
        self.down1, self.enc2 = InvertedResidual(a, b, 2, 2), InvertedResidual(b, b, 1, 2)
        self.down2, self.mid = InvertedResidual(b, c, 2, 2), InvertedResidual(c, c, 1, 2)
        self.up2, self.up1 = UpBlock(c, b, b), UpBlock(b, a, a)
        self.dec2 = InvertedResidual(b, b, 1, 2) if separate_up else nn.Identity()
        self.dec1 = InvertedResidual(a, a, 1, 2) if separate_up else nn.Identity()
        self.head = nn.Conv2d(a, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.enc1(self.stem(x))
        b = self.enc2(self.down1(a))
        y = self.mid(self.down2(b))
        y = self.dec2(self.up2(y, b))
        return x + self.head(self.dec1(self.up1(y, a)))


class ConvBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, stride: Sequence[int], *, transposed: bool = False):
        super().__init__()
        kernel = tuple(5 if step > 1 else 1 for step in stride)
        padding = tuple(size // 2 for size in kernel)
        kind = nn.ConvTranspose2d if transposed else nn.Conv2d
        self.conv = kind(in_channels, out_channels, kernel, tuple(stride), padding)
        self.bn, self.act = nn.BatchNorm2d(out_channels), nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


class TemporalBlock(nn.Module):
    """Pointwise, dilated depthwise and pointwise convolution, padded into the past only."""

    def __init__(self, channels: int, dilation: int, *, transposed: bool = False):
        super().__init__()
        kind = nn.ConvTranspose2d if transposed else nn.Conv2d
        self.past = 2 * dilation
        self.point_conv1, self.point_conv2 = kind(channels, channels, 1), kind(channels, channels, 1)
        padding = (self.past if transposed else 0, 1)
        self.depth_conv = kind(channels, channels, 3, padding=padding, dilation=(dilation, 1), groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(self.point_conv1(x).relu(), [0, 0, self.past, 0])
        return self.point_conv2(self.depth_conv(x).relu())


class DualPathRNN(nn.Module):
    """A recurrent layer along the frequencies, and one along time."""

    def __init__(self, channels: int):
        super().__init__()
        self.intra_rnn = nn.GRU(channels, channels // 2, batch_first=True, bidirectional=True)
        self.intra_fc = nn.Linear(channels, channels)
        self.inter_rnn = nn.GRU(channels, channels, batch_first=True)
        self.inter_fc = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        n, t, f, c = x.shape
        x = x + self.intra_fc(self.intra_rnn(x.reshape(n * t, f, c))[0]).reshape(n, t, f, c)
        x = x.permute(0, 2, 1, 3)
        y = self.inter_fc(self.inter_rnn(x.reshape(n * f, t, c))[0]).reshape(n, f, t, c)
        return (x + y).permute(0, 3, 2, 1)


class SpeechNet(nn.Module):
    """As GTCRN: frequencies are halved, time is not; recurrent at the bottom; every skip is added.

    `spectrum` makes it take and give (N, F, T, 2), with the frequencies first.
    """

    def __init__(self, channels: int = 8, *, spectrum: bool = False, recurrent: bool = True):
        super().__init__()
        self.spectrum = spectrum
        self.en_convs = nn.ModuleList(
            [
                ConvBlock(3 if spectrum else 2, channels, (1, 2)),
                ConvBlock(channels, channels, (1, 2)),
                TemporalBlock(channels, 1),
                TemporalBlock(channels, 2),
            ]
        )
        self.dpgrnn = DualPathRNN(channels) if recurrent else TemporalBlock(channels, 4)
        self.de_convs = nn.ModuleList(
            [
                TemporalBlock(channels, 2, transposed=True),
                TemporalBlock(channels, 1, transposed=True),
                ConvBlock(channels, channels, (1, 2), transposed=True),
                ConvBlock(channels, 2, (1, 2), transposed=True),
            ]
        )

    def forward(self, given: Tensor) -> Tensor:
        x = given
        if self.spectrum:
            real, imaginary = given[..., 0].permute(0, 2, 1), given[..., 1].permute(0, 2, 1)
            x = torch.stack([torch.sqrt(real**2 + imaginary**2 + 1e-12), real, imaginary], dim=1)
        taken = []
        for conv in self.en_convs:
            x = conv(x)
            taken.append(x)
        x = self.dpgrnn(x)
        for conv in self.de_convs:
            x = conv(x + taken.pop())
        return x.permute(0, 3, 2, 1) if self.spectrum else x
