"""Small equivalents of timm's EfficientNet family, of which its MobileNetV2 is a member.

Module names and graph are timm's: normalization and activation are one module, a subclass of `BatchNorm2d`, and
activations work in place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .torchvision import scaled


@dataclass(frozen=True)
class Group:
    """A run of blocks: all have the same kernel and channels, the first has the stride."""

    blocks: int
    kernel_size: int
    stride: int
    expansion: int
    channels: int


MOBILENET_V2 = (
    Group(1, 3, 1, 1, 16), Group(2, 3, 2, 6, 24), Group(3, 3, 2, 6, 32), Group(4, 3, 2, 6, 64), Group(3, 3, 1, 6, 96),
    Group(3, 3, 2, 6, 160), Group(1, 3, 1, 6, 320),
)  # fmt: skip
EFFICIENTNET_B0 = (
    Group(1, 3, 1, 1, 16), Group(2, 3, 2, 6, 24), Group(2, 5, 2, 6, 40), Group(3, 3, 2, 6, 80), Group(3, 5, 1, 6, 112),
    Group(4, 5, 2, 6, 192), Group(1, 3, 1, 6, 320),
)  # fmt: skip


class Swish(nn.Module):
    def __init__(self, inplace: bool = False):
        super().__init__()
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(x.sigmoid()) if self.inplace else x.mul(x.sigmoid())


class BatchNormAct2d(nn.BatchNorm2d):
    """Batch normalization with the activation behind it, in one module with the state of the first."""

    def __init__(self, channels: int, activation: Callable[..., nn.Module] | None):
        super().__init__(channels)
        self.drop = nn.Identity()
        self.act = nn.Identity() if activation is None else activation(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        torch._assert(x.ndim == 4, f"expected 4D input (got {x.ndim}D input)")
        if self.training:
            self.num_batches_tracked.add_(1)
        x = F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, self.training, self.momentum, self.eps
        )
        return self.act(self.drop(x))


class DropPath(nn.Module):
    """Drops whole samples of a residual branch in training; the identity in evaluation."""

    def __init__(self, drop_prob: float):
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        if self.drop_prob == 0.0 or not self.training:
            return x
        kept = 1 - self.drop_prob
        mask = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(kept)
        mask.div_(kept)
        return x * mask


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int, reduced: int, activation: Callable[..., nn.Module]):
        super().__init__()
        self.conv_reduce = nn.Conv2d(channels, reduced, 1)
        self.act1 = activation(inplace=True)
        self.conv_expand = nn.Conv2d(reduced, channels, 1)
        self.gate = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean((2, 3), keepdim=True)
        return x * self.gate(self.conv_expand(self.act1(self.conv_reduce(pooled))))


@dataclass(frozen=True)
class Style:
    """What all blocks of a network have in common: activation, squeeze-excite as a part of the input width or none."""

    activation: Callable[..., nn.Module]
    squeeze: float = 0.0

    def norm(self, channels: int, *, act: bool = True) -> BatchNormAct2d:
        return BatchNormAct2d(channels, self.activation if act else None)

    def attention(self, channels: int, block_inputs: int) -> nn.Module:
        if not self.squeeze:
            return nn.Identity()
        return SqueezeExcite(channels, round(block_inputs * self.squeeze), self.activation)


def convolution(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False)


class DepthwiseSeparableConv(nn.Module):
    def __init__(self, in_channels: int, group: Group, out_channels: int, stride: int, style: Style, drop_path: float):
        super().__init__()
        self.has_skip = stride == 1 and in_channels == out_channels
        self.conv_dw = convolution(in_channels, in_channels, group.kernel_size, stride, groups=in_channels)
        self.bn1 = style.norm(in_channels)
        self.aa = nn.Identity()
        self.se = style.attention(in_channels, in_channels)
        self.conv_pw = convolution(in_channels, out_channels, 1)
        self.bn2 = style.norm(out_channels, act=False)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        x = self.se(self.aa(self.bn1(self.conv_dw(x))))
        x = self.bn2(self.conv_pw(x))
        return self.drop_path(x) + shortcut if self.has_skip else x


class InvertedResidual(nn.Module):
    def __init__(self, in_channels: int, group: Group, out_channels: int, stride: int, style: Style, drop_path: float):
        super().__init__()
        wide = in_channels * group.expansion
        self.has_skip = stride == 1 and in_channels == out_channels
        self.conv_pw = convolution(in_channels, wide, 1)
        self.bn1 = style.norm(wide)
        self.conv_dw = convolution(wide, wide, group.kernel_size, stride, groups=wide)
        self.bn2 = style.norm(wide)
        self.aa = nn.Identity()
        self.se = style.attention(wide, in_channels)
        self.conv_pwl = convolution(wide, out_channels, 1)
        self.bn3 = style.norm(out_channels, act=False)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        x = self.bn1(self.conv_pw(x))
        x = self.se(self.aa(self.bn2(self.conv_dw(x))))
        x = self.bn3(self.conv_pwl(x))
        return self.drop_path(x) + shortcut if self.has_skip else x


class SelectAdaptivePool2d(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.flatten(self.pool(x))


class EfficientNet(nn.Module):
    """(N, 3, H, W) → (N, `num_classes`)."""

    def __init__(
        self,
        groups: Sequence[Group],
        style: Style,
        width: float = 1.0,
        num_features: int = 1280,
        num_classes: int = 1000,
        drop_path_rate: float = 0.0,
    ):
        super().__init__()
        channels = scaled(32, width)
        self.conv_stem = convolution(3, channels, 3, stride=2)
        self.bn1 = style.norm(channels)
        stages, index, total = [], 0, sum(group.blocks for group in groups)
        for group in groups:
            kind = DepthwiseSeparableConv if group.expansion == 1 else InvertedResidual
            blocks = []
            for i in range(group.blocks):
                stride = 1 if i else group.stride
                drop_path = drop_path_rate * index / total
                blocks.append(kind(channels, group, scaled(group.channels, width), stride, style, drop_path))
                channels = scaled(group.channels, width)
                index += 1
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)
        self.conv_head = convolution(channels, num_features, 1)
        self.bn2 = style.norm(num_features)
        self.global_pool = SelectAdaptivePool2d()
        self.classifier = nn.Linear(num_features, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn2(self.conv_head(self.blocks(self.bn1(self.conv_stem(x)))))
        return self.classifier(self.global_pool(x))


def mobilenet_v2(width: float = 1.0, num_features: int = 1280, num_classes: int = 1000) -> EfficientNet:
    return EfficientNet(MOBILENET_V2, Style(nn.ReLU6), width, num_features, num_classes)
