"""A hypothesis strategy that draws U-Net-like modules."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor, nn


@dataclass(frozen=True)
class Plan:
    """What a generated network is made of; its repr in a failing example is enough to build it again."""

    depth: int
    width: int
    block: str
    norm: str
    activation: str
    down: str
    up: str
    skip: str
    shared_bottleneck: bool


plans = st.builds(
    Plan,
    depth=st.integers(1, 3),
    width=st.sampled_from([4, 6, 8]),
    block=st.sampled_from(["dense", "separable", "inverted", "gated", "residual", "chain"]),
    norm=st.sampled_from(["none", "batch", "group"]),
    activation=st.sampled_from(["relu", "relu6", "gelu", "leaky"]),
    down=st.sampled_from(["max", "conv2", "conv3", "conv4", "separable"]),
    up=st.sampled_from(["transposed2", "transposed4", "transposed3", "shuffle1", "shuffle3", "bilinear", "nearest1"]),
    skip=st.sampled_from(["cat", "add"]),
    shared_bottleneck=st.booleans(),
)

ACTIVATIONS = {"relu": nn.ReLU, "relu6": nn.ReLU6, "gelu": nn.GELU, "leaky": lambda: nn.LeakyReLU(0.2)}


def norm(plan: Plan, channels: int) -> list[nn.Module]:
    if plan.norm == "batch":
        layer = nn.BatchNorm2d(channels)
        layer.running_mean.uniform_(-0.5, 0.5)
        layer.running_var.uniform_(0.5, 2)
        return [layer]
    return [nn.GroupNorm(2, channels)] if plan.norm == "group" else []


class Gate(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=1)
        return a * b


class Residual(nn.Module):
    def __init__(self, body: nn.Module):
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def depthwise(channels: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=bias)


def block(plan: Plan, inputs: int, outputs: int) -> nn.Module:
    act = ACTIVATIONS[plan.activation]
    if plan.block == "dense":
        return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), *norm(plan, outputs), act())
    if plan.block == "separable":
        return nn.Sequential(depthwise(inputs, bias=False), nn.Conv2d(inputs, outputs, 1), act())
    if plan.block == "inverted":
        wide = 2 * inputs
        return nn.Sequential(
            *(nn.Conv2d(inputs, wide, 1), *norm(plan, wide), act()),
            *(depthwise(wide), *norm(plan, wide), act()),
            nn.Conv2d(wide, outputs, 1),
        )
    if plan.block == "chain":
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1), depthwise(outputs), depthwise(outputs), act(),
            nn.Conv2d(outputs, outputs, 3, padding=1),
        )  # fmt: skip
    if plan.block == "gated":
        wide = 2 * inputs
        return nn.Sequential(nn.Conv2d(inputs, wide, 1), depthwise(wide), Gate(), nn.Conv2d(inputs, outputs, 1))
    body = nn.Sequential(nn.Conv2d(outputs, outputs, 3, padding=1), *norm(plan, outputs), act(), depthwise(outputs))
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1), Residual(body))


def down(plan: Plan, inputs: int, outputs: int) -> nn.Module:
    if plan.down == "max":
        return nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(inputs, outputs, 1))
    if plan.down == "separable":
        return nn.Sequential(depthwise(inputs, stride=2), nn.Conv2d(inputs, outputs, 1))
    kernel_size = int(plan.down[-1])
    return nn.Conv2d(inputs, outputs, kernel_size, 2, (kernel_size - 1) // 2)


def up(plan: Plan, inputs: int, outputs: int) -> nn.Module:
    if plan.up == "transposed2":
        return nn.ConvTranspose2d(inputs, outputs, 2, 2)
    if plan.up == "transposed4":
        return nn.ConvTranspose2d(inputs, outputs, 4, 2, 1)
    if plan.up == "transposed3":
        return nn.ConvTranspose2d(inputs, outputs, 3, 2, 1, output_padding=1)
    if plan.up.startswith("shuffle"):
        kernel_size = int(plan.up[-1])
        return nn.Sequential(nn.Conv2d(inputs, 4 * outputs, kernel_size, padding=kernel_size // 2), nn.PixelShuffle(2))
    if plan.up == "nearest1":
        return nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(inputs, outputs, 1))
    return nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(inputs, outputs, 3, padding=1))


class GeneratedUNet(nn.Module):
    """(N, 3, H, W) → (N, 3, H, W), H and W multiples of 2^depth."""

    def __init__(self, plan: Plan):
        super().__init__()
        self.plan = plan
        widths = [plan.width * 2**level for level in range(plan.depth + 1)]
        pairs = list(itertools.pairwise(widths))
        self.first = nn.Conv2d(3, plan.width, 3, padding=1)
        self.left = nn.ModuleList(block(plan, a, a) for a in widths[:-1])
        self.downs = nn.ModuleList(down(plan, a, b) for a, b in pairs)
        self.bottom = block(plan, widths[-1], widths[-1])
        self.ups = nn.ModuleList(up(plan, b, a) for a, b in reversed(pairs))
        merged = 2 if plan.skip == "cat" else 1
        self.right = nn.ModuleList(block(plan, merged * a, a) for a in reversed(widths[:-1]))
        self.last = nn.Conv2d(plan.width, 3, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        x, skips = self.first(image), []
        for left, shrink in zip(self.left, self.downs, strict=True):
            x = left(x)
            skips.append(x)
            x = shrink(x)
        x = self.bottom(x)
        if self.plan.shared_bottleneck:
            x = self.bottom(x)
        for enlarge, right in zip(self.ups, self.right, strict=True):
            x, skip = enlarge(x), skips.pop()
            x = right(torch.cat([x, skip], dim=1) if self.plan.skip == "cat" else x + skip)
        return image + self.last(x)
