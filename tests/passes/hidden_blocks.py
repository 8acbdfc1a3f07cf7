"""Blocks with hidden channels, and what three quarters of them leave of their layers."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.calibration.small import Between, conv

SHAPE = (1, 3, 16, 16)


def depthwise(channels: int, kernel_size: int = 3) -> nn.Conv2d:
    return conv(channels, channels, kernel_size, groups=channels)


def inverted(m: Between, x: Tensor) -> Tensor:
    return x + m.c(F.relu6(m.b(F.relu6(m.n(m.a(x))))))


def gated(m: Between, x: Tensor) -> Tensor:
    a, b = m.b(m.a(x)).chunk(2, 1)
    return x + m.c(a * b)


def attended(m: Between, x: Tensor) -> Tensor:
    y = F.gelu(m.a(x))
    y = y * torch.sigmoid(m.e(F.relu(m.s(y.mean((2, 3), keepdim=True)))))
    return x + m.c(y)


def split(m: Between, x: Tensor) -> Tensor:
    a, b = torch.split(m.a(x), [16, 16], 1)
    return x + m.c(torch.sigmoid(a) * b)


def sliced(m: Between, x: Tensor) -> Tensor:
    y = m.a(x)
    return x + m.c(y[:, :16] * torch.tanh(y[:, 16:]))


def rows(m: Between, x: Tensor) -> Tensor:
    return x + m.c(F.gelu(m.a(m.n(m.d(x).permute(0, 2, 3, 1))))).permute(0, 3, 1, 2)


def plain(m: Between, x: Tensor) -> Tensor:
    return x + m.c(F.relu(m.n(m.a(x))))


def scaled(m: Between, x: Tensor) -> Tensor:
    return x + m.c(m.p(m.a(x)) * m.w)


def two(m: Between, x: Tensor) -> Tensor:
    return x + m.c(m.a(x) * torch.sigmoid(m.b(x)))


NARROWED: dict[str, tuple[Callable[[], nn.Module], dict[str, str]]] = {
    "inverted residual": (
        lambda: Between(inverted, a=conv(8, 32), n=nn.BatchNorm2d(32), b=depthwise(32), c=conv(32, 8)),
        {
            "a": "Conv2d(8→24, k1, bias)",
            "n": str(nn.BatchNorm2d(24)),
            "b": "Conv2d(24, k3, bias, depthwise)",
            "c": "Conv2d(24→8, k1, bias)",
        },
    ),
    "gate": (
        lambda: Between(gated, a=conv(8, 32), b=depthwise(32), c=conv(16, 8)),
        {"a": "Conv2d(8→24, k1, bias)", "b": "Conv2d(24, k3, bias, depthwise)", "c": "Conv2d(12→8, k1, bias)"},
    ),
    "channel attention": (
        lambda: Between(attended, a=conv(8, 16), s=conv(16, 4), e=conv(4, 16), c=conv(16, 8)),
        {
            "a": "Conv2d(8→12, k1, bias)",
            "s": "Conv2d(12→4, k1, bias)",
            "e": "Conv2d(4→12, k1, bias)",
            "c": "Conv2d(12→8, k1, bias)",
        },
    ),
    "split by sizes": (
        lambda: Between(split, a=conv(8, 32), c=conv(16, 8)),
        {"a": "Conv2d(8→24, k1, bias)", "c": "Conv2d(12→8, k1, bias)"},
    ),
    "slices": (
        lambda: Between(sliced, a=conv(8, 32), c=conv(16, 8)),
        {"a": "Conv2d(8→24, k1, bias)", "c": "Conv2d(12→8, k1, bias)"},
    ),
    "multilayer perceptron": (
        lambda: Between(rows, d=depthwise(8, 7), n=nn.LayerNorm(8), a=nn.Linear(8, 32), c=nn.Linear(32, 8)),
        {
            "a": "Linear(in_features=8, out_features=24, bias=True)",
            "c": "Linear(in_features=24, out_features=8, bias=True)",
        },
    ),
    "dense convolutions": (
        lambda: Between(plain, a=conv(8, 16, 3, bias=False), n=nn.InstanceNorm2d(16), c=conv(16, 8, 3, bias=False)),
        {
            "a": "Conv2d(8→12, k3)",
            "n": str(nn.InstanceNorm2d(12)),
            "c": "Conv2d(12→8, k3)",
        },
    ),
    "group norm": (
        lambda: Between(plain, a=conv(8, 32), n=nn.GroupNorm(8, 32), c=conv(32, 8)),
        {
            "a": "Conv2d(8→24, k1, bias)",
            "n": str(nn.GroupNorm(6, 24)),
            "c": "Conv2d(24→8, k1, bias)",
        },
    ),
    "group convolution": (
        lambda: Between(plain, a=conv(8, 32), n=conv(32, 64, 3, groups=8), c=conv(64, 8)),
        {
            "a": "Conv2d(8→24, k1, bias)",
            "n": "Conv2d(24→48, k3, bias, groups=6)",
            "c": "Conv2d(48→8, k1, bias)",
        },
    ),
    "group norm without weights": (
        lambda: Between(plain, a=conv(8, 32), n=nn.GroupNorm(8, 32, affine=False), c=conv(32, 8)),
        {
            "a": "Conv2d(8→24, k1, bias)",
            "n": str(nn.GroupNorm(6, 24, affine=False)),
            "c": "Conv2d(24→8, k1, bias)",
        },
    ),
    "called twice": (
        lambda: Between(
            lambda m, x: inverted(m, m.t(inverted(m, x))),
            a=conv(8, 32),
            n=nn.BatchNorm2d(32),
            b=depthwise(32),
            c=conv(32, 8),
            t=nn.Tanh(),
        ),
        {
            "a": "Conv2d(8→24, k1, bias)",
            "n": str(nn.BatchNorm2d(24)),
            "b": "Conv2d(24, k3, bias, depthwise)",
            "c": "Conv2d(24→8, k1, bias)",
        },
    ),
    "made by two, read at two places": (
        lambda: Between(
            lambda m, x: x + m.c(F.relu(m.a(x))) + m.c(F.relu(m.b(x))), a=conv(8, 16), b=conv(8, 16), c=conv(16, 8)
        ),
        {"a": "Conv2d(8→12, k1, bias)", "b": "Conv2d(8→12, k1, bias)", "c": "Conv2d(12→8, k1, bias)"},
    ),
    "one activation at all places": (
        lambda: Between(lambda m, x: m.r(x + m.c(m.r(m.a(m.r(x))))), a=conv(8, 16), r=nn.ReLU(), c=conv(16, 8)),
        {"a": "Conv2d(8→12, k1, bias)", "c": "Conv2d(12→8, k1, bias)"},
    ),
    "scale of each channel": (
        lambda: Between(scaled, a=conv(8, 16), p=nn.PReLU(16), w=nn.Parameter(torch.rand(1, 16, 1, 1)), c=conv(16, 8)),
        {"a": "Conv2d(8→12, k1, bias)", "p": "PReLU(num_parameters=12)", "c": "Conv2d(12→8, k1, bias)"},
    ),
    "two that make them": (
        lambda: Between(two, a=conv(8, 16), b=conv(8, 16), c=conv(16, 8)),
        {"a": "Conv2d(8→12, k1, bias)", "b": "Conv2d(8→12, k1, bias)", "c": "Conv2d(12→8, k1, bias)"},
    ),
    "enlarged": (
        lambda: Between(
            lambda m, x: x + F.avg_pool2d(m.c(F.relu(m.a(x))), 2), a=conv(8, 16), c=nn.ConvTranspose2d(16, 8, 2, 2)
        ),
        {"a": "Conv2d(8→12, k1, bias)", "c": "ConvTranspose2d(12→8, k2, s2, bias)"},
    ),
}
