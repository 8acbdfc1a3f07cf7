"""The blocks of generated networks, (N, I, H, W) → (N, O, H, W), as they occur in the wild."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import activation, conv, depthwise, finish, norm
from .plan import Plan


class SimpleGate(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=1)
        return a * b


class Residual(nn.Module):
    def __init__(self, body: nn.Module):
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(channels, 2, 1), nn.Conv2d(2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        scale = self.expand(F.relu(self.reduce(x.mean((2, 3), keepdim=True)), inplace=True))
        return x * F.hardsigmoid(scale)


class Double(nn.Module):
    """Two convolutions with functional activations."""

    def __init__(self, plan: Plan, inputs: int, outputs: int):
        super().__init__()
        self.conv1, self.norm1 = conv(plan, inputs, outputs), nn.Sequential(*norm(plan, outputs))
        self.conv2, self.norm2 = conv(plan, outputs, outputs), nn.Sequential(*norm(plan, outputs))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(x)), inplace=True)


class ConvNeXt(nn.Module):
    """Depthwise convolution, then linear layers with the channels last."""

    def __init__(self, plan: Plan, channels: int):
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm, self.act = nn.LayerNorm(channels), nn.GELU()
        self.widen, self.narrow = nn.Linear(channels, 2 * channels), nn.Linear(2 * channels, channels)
        self.gamma = nn.Parameter(torch.full((channels,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.gamma * self.narrow(self.act(self.widen(y)))
        return x + y.permute(0, 3, 1, 2)


class Tokens(nn.Module):
    """Mixes channels over pixels in a row, then a depthwise convolution on the image again, as Mix-FFN has it."""

    def __init__(self, plan: Plan, channels: int):
        super().__init__()
        self.norm, self.depthwise = nn.LayerNorm(channels), depthwise(plan, channels)
        self.first, self.last = nn.Linear(channels, channels), nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        y = self.first(self.norm(tokens))
        y = self.depthwise(y.transpose(1, 2).view(n, c, h, w)).flatten(2).transpose(1, 2)
        tokens = tokens + self.last(F.gelu(y))
        return tokens.transpose(1, 2).reshape(n, c, h, w)


class Windows(nn.Module):
    """Mixes the pixels of each 4x4 window, padding where the size is no multiple."""

    def __init__(self, channels: int, size: int = 4):
        super().__init__()
        self.size, self.mix, self.project = size, nn.Linear(size * size, size * size), nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        s = self.size
        below, right = (s - h % s) % s, (s - w % s) % s
        y = x
        if below > 0 or right > 0:
            y = F.pad(y, (0, right, 0, below))
        rows, columns = (h + below) // s, (w + right) // s
        y = y.view(n, c, rows, s, columns, s).permute(0, 1, 2, 4, 3, 5).reshape(n, c, -1, s * s)
        y = self.mix(y).view(n, c, rows, columns, s, s).permute(0, 1, 2, 4, 3, 5)
        y = y.reshape(n, c, rows * s, columns * s)[:, :, :h, :w].contiguous()
        return x + self.project(y)


class Recurrent(nn.Module):
    """One block called several times."""

    def __init__(self, body: nn.Module, times: int = 3):
        super().__init__()
        self.body, self.times = body, times

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        for _ in range(self.times - 1):
            y = self.body(x + y)
        return y


class Growing(nn.Module):
    """A dense block: each layer reads all that came before."""

    def __init__(self, plan: Plan, channels: int, layers: int = 2, rate: int = 3):
        super().__init__()
        made = (nn.Sequential(conv(plan, channels + i * rate, rate), *finish(plan, rate)) for i in range(layers))
        self.layers = nn.ModuleList(made)
        self.fuse = nn.Conv2d(channels + layers * rate, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1)))
        return x + 0.2 * self.fuse(torch.cat(features, dim=1))


class Ghost(nn.Module):
    """Half of the channels come from a cheap depthwise convolution of the other half."""

    def __init__(self, plan: Plan, inputs: int, outputs: int):
        super().__init__()
        half = math.ceil(outputs / 2)
        self.outputs = outputs
        self.primary, self.cheap = nn.Sequential(nn.Conv2d(inputs, half, 1), *finish(plan, half)), depthwise(plan, half)

    def forward(self, x: Tensor) -> Tensor:
        primary = self.primary(x)
        return torch.cat((primary, self.cheap(primary)), dim=1)[:, : self.outputs]


class ChannelShuffle(nn.Module):
    def __init__(self, groups: int):
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.size()
        return x.view(n, self.groups, c // self.groups, h, w).transpose(1, 2).contiguous().view(n, -1, h, w)


class Pyramid(nn.Module):
    """Branches of several dilations, and one of the mean, brought back to the size by interpolation."""

    def __init__(self, plan: Plan, channels: int):
        super().__init__()
        self.branches = nn.ModuleList(conv(plan, channels, channels, dilation=dilation) for dilation in (1, 2))
        pooled = nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1), activation(plan, channels)
        self.pooled = nn.Sequential(*pooled)
        self.fuse = nn.Conv2d(3 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        found = [branch(x) for branch in self.branches]
        mean = F.interpolate(self.pooled(x), size=x.shape[-2:], mode="bilinear", align_corners=False)
        return self.fuse(torch.cat([*found, mean], dim=1))


class Functional(nn.Module):
    """A convolution whose weight the block holds itself."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3) / (3 * inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu_(F.conv2d(x, self.weight, self.bias, stride=1, padding=1))


class ChannelWise(nn.Module):
    """Channel attention by a one-dimensional convolution, and a learned scale for each pixel's mean."""

    def __init__(self, plan: Plan, channels: int):
        super().__init__()
        self.body = nn.Sequential(conv(plan, channels, channels), *finish(plan, channels), depthwise(plan, channels))
        self.attend = nn.Conv1d(1, 1, 3, padding=1, bias=False)
        self.scale = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        weight = self.attend(F.adaptive_avg_pool2d(y, 1).squeeze(-1).transpose(-1, -2)).transpose(-1, -2).unsqueeze(-1)
        return torch.addcmul(x, y * weight.sigmoid().expand_as(y), self.scale)


def block(plan: Plan, kind: str, inputs: int, outputs: int) -> nn.Module:
    """A block of this kind, with a pointwise convolution in front where it cannot change the width itself."""
    changing = {
        "dense": lambda: nn.Sequential(conv(plan, inputs, outputs), *finish(plan, outputs)),
        "double": lambda: Double(plan, inputs, outputs),
        "separable": lambda: nn.Sequential(
            depthwise(plan, inputs, bias=False), nn.Conv2d(inputs, outputs, 1), activation(plan, outputs)
        ),
        "separable-norm": lambda: nn.Sequential(
            depthwise(plan, inputs), *finish(plan, inputs), nn.Conv2d(inputs, outputs, 1), *finish(plan, outputs)
        ),
        "inverted": lambda: _inverted(plan, inputs, outputs),
        "inverted-se": lambda: _inverted(plan, inputs, outputs, SqueezeExcite(2 * inputs)),
        "gated": lambda: nn.Sequential(
            *norm(plan, inputs), nn.Conv2d(inputs, 2 * inputs, 1), depthwise(plan, 2 * inputs), SimpleGate(),
            nn.Conv2d(inputs, outputs, 1),
        ),
        "chain": lambda: nn.Sequential(
            conv(plan, inputs, outputs), depthwise(plan, outputs), depthwise(plan, outputs),
            activation(plan, outputs), conv(plan, outputs, outputs),
        ),
        "dilated": lambda: nn.Sequential(
            conv(plan, inputs, outputs, dilation=2), *finish(plan, outputs), depthwise(plan, outputs, dilation=2),
            nn.Conv2d(outputs, outputs, 1),
        ),
        "ghost": lambda: Ghost(plan, inputs, outputs),
        "oblong": lambda: nn.Sequential(conv(plan, inputs, outputs, (1, 3)), conv(plan, outputs, outputs, (3, 1))),
        "functional": lambda: Functional(inputs, outputs),
        "even": lambda: nn.Sequential(
            nn.ZeroPad2d((0, 1, 1, 0)), nn.Conv2d(inputs, outputs, 2), activation(plan, outputs),
            nn.Conv2d(outputs, outputs, 2, padding="same"),
        ),
    }  # fmt: skip
    if kind in changing:
        return changing[kind]()
    groups = math.gcd(outputs, 2)
    keeping = {
        "residual": lambda: Residual(
            nn.Sequential(conv(plan, outputs, outputs), *finish(plan, outputs), depthwise(plan, outputs))
        ),
        "preact": lambda: Residual(
            nn.Sequential(*(norm(plan, outputs) or [nn.Identity()]), nn.SiLU(), conv(plan, outputs, outputs))
        ),
        "convnext": lambda: ConvNeXt(plan, outputs),
        "grouped": lambda: nn.Sequential(conv(plan, outputs, outputs, groups=groups), *finish(plan, outputs)),
        "tokens": lambda: Tokens(plan, outputs),
        "windows": lambda: Windows(outputs),
        "recurrent": lambda: Recurrent(nn.Sequential(conv(plan, outputs, outputs), *finish(plan, outputs))),
        "growing": lambda: Growing(plan, outputs),
        "shuffled": lambda: nn.Sequential(
            nn.Conv2d(outputs, outputs, 1, groups=groups), ChannelShuffle(groups), depthwise(plan, outputs, 5),
            nn.Conv2d(outputs, outputs, 1),
        ),
        "pyramid": lambda: Pyramid(plan, outputs),
        "large": lambda: nn.Sequential(
            depthwise(plan, outputs, 5), *norm(plan, outputs), nn.Conv2d(outputs, outputs, 1)
        ),
        "wise": lambda: ChannelWise(plan, outputs),
    }  # fmt: skip
    body = keeping[kind]()
    return body if inputs == outputs else nn.Sequential(nn.Conv2d(inputs, outputs, 1), body)


def _inverted(plan: Plan, inputs: int, outputs: int, *between: nn.Module) -> nn.Module:
    wide = 2 * inputs
    body = nn.Sequential(
        *(nn.Conv2d(inputs, wide, 1, bias=plan.bias), *finish(plan, wide)),
        *(depthwise(plan, wide), *finish(plan, wide), *between),
        *(nn.Conv2d(wide, outputs, 1, bias=plan.bias), *norm(plan, outputs)),
    )
    return Residual(body) if inputs == outputs else body
