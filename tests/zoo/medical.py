"""Small equivalents of networks that segment: nnU-Net's residual encoder U-Net, ResUnet and U²-Net.

Module names and graph are those of dynamic_network_architectures, of rishikksh20/ResUnet and of xuebinqin/U-2-Net.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvDropoutNormReLU(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, *, nonlinear: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride, 1)
        self.norm = nn.InstanceNorm2d(out_channels, affine=True)
        layers: list[nn.Module] = [self.conv, self.norm]
        if nonlinear:
            self.nonlin = nn.LeakyReLU(inplace=True)
            layers.append(self.nonlin)
        self.all_modules = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.all_modules(x)


class StackedConvBlocks(nn.Module):
    def __init__(self, convolutions: int, in_channels: int, out_channels: int, stride: int = 1):
        super().__init__()
        first = ConvDropoutNormReLU(in_channels, out_channels, stride)
        others = (ConvDropoutNormReLU(out_channels, out_channels) for _ in range(convolutions - 1))
        self.convs = nn.Sequential(first, *others)

    def forward(self, x: Tensor) -> Tensor:
        return self.convs(x)


class BasicBlockD(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.conv1 = ConvDropoutNormReLU(in_channels, out_channels, stride)
        self.conv2 = ConvDropoutNormReLU(out_channels, out_channels, nonlinear=False)
        self.nonlin2 = nn.LeakyReLU(inplace=True)
        skip: list[nn.Module] = [nn.AvgPool2d(stride, stride)] if stride > 1 else []
        if in_channels != out_channels:
            skip += [nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.InstanceNorm2d(out_channels, affine=True)]
        self.skip = nn.Sequential(*skip)

    def forward(self, x: Tensor) -> Tensor:
        return self.nonlin2(self.conv2(self.conv1(x)) + self.skip(x))


class StackedResidualBlocks(nn.Module):
    def __init__(self, blocks: int, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        first = BasicBlockD(in_channels, out_channels, stride)
        self.blocks = nn.Sequential(first, *(BasicBlockD(out_channels, out_channels, 1) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


class ResidualEncoder(nn.Module):
    def __init__(self, channels: Sequence[int], blocks: Sequence[int]):
        super().__init__()
        self.stem = StackedConvBlocks(1, 1, channels[0])
        widths = list(pairwise([channels[0], *channels]))
        self.stages = nn.Sequential(
            *(
                StackedResidualBlocks(n, *width, stride=2 if i else 1)
                for i, (width, n) in enumerate(zip(widths, blocks, strict=True))
            )
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


class UNetDecoder(nn.Module):
    """With deep supervision switched off, as for inference: the other heads are there and never called."""

    def __init__(self, channels: Sequence[int], convolutions: int):
        super().__init__()
        upwards = list(pairwise(reversed(channels)))
        self.stages = nn.ModuleList(StackedConvBlocks(convolutions, 2 * after, after) for _, after in upwards)
        self.transpconvs = nn.ModuleList(nn.ConvTranspose2d(before, after, 2, 2) for before, after in upwards)
        self.seg_layers = nn.ModuleList(nn.Conv2d(after, 2, 1) for _, after in upwards)

    def forward(self, features: list[Tensor]) -> Tensor:
        x = features[-1]
        for i, (stage, up) in enumerate(zip(self.stages, self.transpconvs, strict=True)):
            x = stage(torch.cat((up(x), features[-(i + 2)]), 1))
        return self.seg_layers[-1](x)


class ResidualEncoderUNet(nn.Module):
    """nnU-Net's default since 2024 ("nnU-Net Revisited"): residual encoder, plain decoder."""

    def __init__(self, channels: Sequence[int] = (4, 8, 8, 16), blocks: Sequence[int] = (1, 3, 4, 6), decoder: int = 1):
        super().__init__()
        self.encoder = ResidualEncoder(channels, blocks)
        self.decoder = UNetDecoder(channels, decoder)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


class ResidualConv(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.BatchNorm2d(in_channels), nn.ReLU(), nn.Conv2d(in_channels, out_channels, 3, stride, 1),
            nn.BatchNorm2d(out_channels), nn.ReLU(), nn.Conv2d(out_channels, out_channels, 3, padding=1),
        )  # fmt: skip
        self.conv_skip = nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, stride, 1), nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_block(x) + self.conv_skip(x)


class Upsample(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.upsample = nn.ConvTranspose2d(channels, channels, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.upsample(x)


class ResUnet(nn.Module):
    """Zhang et al., "Road Extraction by Deep Residual U-Net"."""

    def __init__(self, widths: Sequence[int] = (4, 8, 16, 32)):
        super().__init__()
        a, b, c, d = widths
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, a, 3, padding=1), nn.BatchNorm2d(a), nn.ReLU(), nn.Conv2d(a, a, 3, padding=1)
        )
        self.input_skip = nn.Sequential(nn.Conv2d(3, a, 3, padding=1))
        self.residual_conv_1, self.residual_conv_2 = ResidualConv(a, b, 2), ResidualConv(b, c, 2)
        self.bridge = ResidualConv(c, d, 2)
        self.upsample_1, self.up_residual_conv1 = Upsample(d), ResidualConv(d + c, c, 1)
        self.upsample_2, self.up_residual_conv2 = Upsample(c), ResidualConv(c + b, b, 1)
        self.upsample_3, self.up_residual_conv3 = Upsample(b), ResidualConv(b + a, a, 1)
        self.output_layer = nn.Sequential(nn.Conv2d(a, 1, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        x1 = self.input_layer(x) + self.input_skip(x)
        x2 = self.residual_conv_1(x1)
        x3 = self.residual_conv_2(x2)
        x4 = self.bridge(x3)
        x5 = self.up_residual_conv1(torch.cat([self.upsample_1(x4), x3], dim=1))
        x6 = self.up_residual_conv2(torch.cat([self.upsample_2(x5), x2], dim=1))
        return self.output_layer(self.up_residual_conv3(torch.cat([self.upsample_3(x6), x1], dim=1)))


class REBNCONV(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, dirate: int = 1):
        super().__init__()
        self.conv_s1 = nn.Conv2d(in_channels, out_channels, 3, padding=dirate, dilation=dirate)
        self.bn_s1 = nn.BatchNorm2d(out_channels)
        self.relu_s1 = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu_s1(self.bn_s1(self.conv_s1(x)))


def _resized_like(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[2:], mode="bilinear")


class RSU(nn.Module):
    """A residual block that is a small U-Net of `depth` levels; `pooled=False` has dilations instead."""

    def __init__(self, in_channels: int, mid: int, out_channels: int, depth: int, *, pooled: bool = True):
        super().__init__()
        self.pooled = pooled
        rates = [1 if pooled else 2**i for i in range(depth)]
        self.rebnconvin = REBNCONV(in_channels, out_channels)
        self.down = nn.ModuleList(REBNCONV(mid if i else out_channels, mid, rate) for i, rate in enumerate(rates))
        self.bottom = REBNCONV(mid, mid, 2 if pooled else 2**depth)
        outputs = [out_channels, *[mid] * (depth - 1)]
        self.up = nn.ModuleList(REBNCONV(2 * mid, out, rate) for out, rate in zip(outputs, rates, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        hxin = x = self.rebnconvin(x)
        features = []
        for i, conv in enumerate(self.down):
            x = conv(F.max_pool2d(x, 2, 2, ceil_mode=True) if i and self.pooled else x)
            features.append(x)
        x = self.bottom(x)
        for conv, feature in zip(reversed(self.up), reversed(features), strict=True):
            x = conv(torch.cat((_resized_like(x, feature), feature), 1))
        return x + hxin


class U2Net(nn.Module):
    """Qin et al., "U²-Net: Going Deeper with Nested U-Structure"; four levels instead of six."""

    def __init__(self, width: int = 8, mid: int = 4):
        super().__init__()
        self.stage1, self.stage2 = RSU(3, mid, width, 4), RSU(width, mid, width, 3)
        self.stage3 = RSU(width, mid, width, 2, pooled=False)
        self.stage4 = RSU(width, mid, width, 2, pooled=False)
        self.stage3d = RSU(2 * width, mid, width, 2, pooled=False)
        self.stage2d, self.stage1d = RSU(2 * width, mid, width, 3), RSU(2 * width, mid, width, 4)
        self.side1, self.side2, self.side3, self.side4 = (nn.Conv2d(width, 1, 3, padding=1) for _ in range(4))
        self.outconv = nn.Conv2d(4, 1, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        hx1 = self.stage1(x)
        hx2 = self.stage2(F.max_pool2d(hx1, 2, 2, ceil_mode=True))
        hx3 = self.stage3(F.max_pool2d(hx2, 2, 2, ceil_mode=True))
        hx4 = self.stage4(F.max_pool2d(hx3, 2, 2, ceil_mode=True))
        hx3d = self.stage3d(torch.cat((_resized_like(hx4, hx3), hx3), 1))
        hx2d = self.stage2d(torch.cat((_resized_like(hx3d, hx2), hx2), 1))
        hx1d = self.stage1d(torch.cat((_resized_like(hx2d, hx1), hx1), 1))
        d1 = self.side1(hx1d)
        sides = ((self.side2, hx2d), (self.side3, hx3d), (self.side4, hx4))
        outputs = [d1, *(_resized_like(side(feature), d1) for side, feature in sides)]
        outputs.insert(0, self.outconv(torch.cat(outputs, 1)))
        return tuple(torch.sigmoid(output) for output in outputs)
