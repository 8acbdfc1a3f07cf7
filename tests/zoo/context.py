"""A NAFNet-like U-Net whose blocks look at smaller copies of their features, in every way that is in use."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _conv(channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, stride, padding=1)


class Pools(nn.Module):
    """Average pooling by 2, 4 and 8, a convolution each, enlarged to the block's own size."""

    def __init__(self, channels: int):
        super().__init__()
        self.convs = nn.ModuleList(_conv(channels) for _ in range(3))
        self.fuse = nn.Conv2d(4 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = [x]
        for i, conv in enumerate(self.convs):
            parts.append(F.interpolate(conv(F.avg_pool2d(x, 2 ** (i + 1))), size=x.shape[-2:], mode="bilinear"))
        return self.fuse(torch.cat(parts, 1))


class PyramidPooling(nn.Module):
    """PSPNet's: adaptive pools to grids of 1, 2, 3 and 6."""

    def __init__(self, channels: int):
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(size), nn.Conv2d(channels, channels, 1), nn.ReLU())
            for size in (1, 2, 3, 6)
        )
        self.bottleneck = nn.Conv2d(5 * channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        parts = [F.interpolate(stage(x), size=x.shape[2:], mode="bilinear") for stage in self.stages]
        return self.bottleneck(torch.cat([*parts, x], 1))


class Atrous(nn.Module):
    """DeepLab's: dilated convolutions beside each other and a pooled vector, enlarged."""

    def __init__(self, channels: int):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=rate, dilation=rate) for rate in (1, 6, 12))
        self.pooling = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1))
        self.project = nn.Conv2d(4 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.interpolate(self.pooling(x), size=x.shape[-2:], mode="bilinear")
        return self.project(torch.cat([*(conv(x) for conv in self.convs), pooled], 1))


class Strided(nn.Module):
    """Three strided convolutions by two in a row, each result enlarged at once."""

    def __init__(self, channels: int):
        super().__init__()
        self.shrink = nn.ModuleList(_conv(channels, 2) for _ in range(3))
        self.mix = nn.Conv2d(4 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y, parts = x, [x]
        for conv in self.shrink:
            y = conv(y).relu()
            parts.append(F.interpolate(y, size=x.shape[-2:]))
        return self.mix(torch.cat(parts, 1))


class NestedU(nn.Module):
    """A U-Net of two levels as a block, by transposed convolutions."""

    def __init__(self, channels: int):
        super().__init__()
        self.a, self.down1, self.b, self.down2 = (
            _conv(channels),
            _conv(channels, 2),
            _conv(channels),
            _conv(channels, 2),
        )
        self.c = _conv(channels)
        self.up1, self.up2 = (nn.ConvTranspose2d(channels, channels, 2, 2) for _ in range(2))
        self.d, self.e = _conv(channels), _conv(channels)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        b = self.b(self.down1(a).relu())
        y = self.d(self.up1(self.c(self.down2(b).relu())) + b)
        return self.e(self.up2(y) + a)


class Resized(nn.Module):
    """To a third and a seventh of the size by interpolation, and back."""

    def __init__(self, channels: int):
        super().__init__()
        self.one, self.two, self.fuse = _conv(channels), _conv(channels), _conv(channels)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        y = self.one(F.interpolate(x, size=(height // 3, width // 3), mode="bilinear"))
        z = self.two(F.interpolate(y, size=(height // 7, width // 7), mode="bilinear"))
        return self.fuse(x + F.interpolate(y, (height, width)) + F.interpolate(z, (height, width)))


class Deep(nn.Module):
    """Pooling by two, two convolutions in a row, enlarged and added."""

    def __init__(self, channels: int):
        super().__init__()
        self.one, self.two = _conv(channels), _conv(channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.interpolate(self.two(self.one(F.max_pool2d(x, 2)).relu()), scale_factor=2)


class Block(nn.Module):
    def __init__(self, channels: int, context: Callable[[int], nn.Module] | None):
        super().__init__()
        self.one, self.two = nn.Conv2d(channels, channels, 1), _conv(channels)
        self.context = nn.Identity() if context is None else context(channels)
        self.last = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.last(self.context(self.two(self.one(x)).relu()))


class ContextUNet(nn.Module):
    """`where` is any of "e" (encoder), "m" (middle) and "d" (decoder)."""

    def __init__(self, context: Callable[[int], nn.Module], where: str, depth: int = 2, width: int = 4):
        super().__init__()

        def block(channels: int, place: str) -> Block:
            return Block(channels, context if place in where else None)

        widths = [width * 2**i for i in range(depth + 1)]
        self.intro, self.ending = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 3, 3, padding=1)
        self.encoders = nn.ModuleList(block(c, "e") for c in widths[:-1])
        self.downs = nn.ModuleList(nn.Conv2d(c, 2 * c, 2, 2) for c in widths[:-1])
        self.middle = block(widths[-1], "m")
        self.ups = nn.ModuleList(nn.ConvTranspose2d(2 * c, c, 2, 2) for c in reversed(widths[:-1]))
        self.decoders = nn.ModuleList(block(c, "d") for c in reversed(widths[:-1]))

    def forward(self, x: Tensor) -> Tensor:
        y, skips = self.intro(x), []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            y = encoder(y)
            skips.append(y)
            y = down(y)
        y = self.middle(y)
        for up, decoder in zip(self.ups, self.decoders, strict=True):
            y = decoder(up(y) + skips.pop())
        return self.ending(y)


CONTEXTS = {kind.__name__: kind for kind in (Pools, PyramidPooling, Atrous, Strided, NestedU, Resized, Deep)}
