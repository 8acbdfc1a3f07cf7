"""Coupled upsamplings, and the kernels in front of an interpolation that come closest to them."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..analysis.layers import Step
from .prior import convolve_taps, period, projection, single_taps


def resize(mode: str, factor: float | tuple[float, ...] | None, size: Any = None) -> nn.Upsample:
    """An interpolation by a factor or to a size; `mode` as in `Step.mode`."""
    kind, _, aligned = mode.partition(", ")
    corners = bool(aligned) if kind in ("bilinear", "bicubic") else None
    return nn.Upsample(size, factor, kind, corners)


def resize_like(step: Step, mode: str) -> nn.Upsample:
    """The interpolation of a step in a mode; of a factor 2 where the network computes the size, or the factor."""
    if step.factor:
        return resize(mode, step.factor)
    if isinstance(step.module, nn.Upsample):
        return resize(mode, step.module.scale_factor, step.module.size)
    return resize(mode, 2)


def _pair(values: tuple[int, ...] | str) -> tuple[int, int]:
    return int(values[0]), int(values[1])


def _span(kernel_size: tuple[int, int], dilation: tuple[int, int]) -> int:
    return max(d * k for d, k in zip(dilation, kernel_size, strict=True))


class Respond(Protocol):
    """A coupled upsampling's geometry: unit impulses (n, 1, h, w) to the responses (n, taps, pixels) of its taps."""

    @property
    def reach(self) -> int:
        """Side of what its kernel spans, in pixels of the low resolution."""
        ...

    def __call__(self, x: Tensor) -> Tensor: ...


class Transposed(NamedTuple):
    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    output_padding: tuple[int, int]
    dilation: tuple[int, int]

    @classmethod
    def of(cls, conv: nn.ConvTranspose2d) -> Transposed:
        return cls(*map(_pair, (conv.kernel_size, conv.stride, conv.padding, conv.output_padding, conv.dilation)))

    @property
    def reach(self) -> int:
        return math.ceil(_span(self.kernel_size, self.dilation) / self.stride[0])

    def __call__(self, x: Tensor) -> Tensor:
        taps = single_taps(*self.kernel_size).transpose(0, 1)
        y = F.conv_transpose2d(x, taps, None, self.stride, self.padding, self.output_padding, dilation=self.dilation)
        return period(y, self.stride[0])


class Shuffled(NamedTuple):
    kernel_size: tuple[int, int]
    dilation: tuple[int, int]
    factor: int

    @classmethod
    def of(cls, conv: nn.Conv2d, factor: int) -> Shuffled:
        return cls(_pair(conv.kernel_size), _pair(conv.dilation), factor)

    @property
    def reach(self) -> int:
        return _span(self.kernel_size, self.dilation)

    def __call__(self, x: Tensor) -> Tensor:
        """Every output pixel of a period has taps of its own: (n, phases * taps, phases)."""
        y = F.conv2d(x, single_taps(*self.kernel_size), None, 1, "same", self.dilation)
        phases = torch.eye(self.factor**2, dtype=y.dtype)
        return torch.einsum("nti,pq->nptq", period(y, 1), phases).flatten(1, 2)


class Enlarged(NamedTuple):
    kernel_size: tuple[int, int]
    dilation: tuple[int, int]
    factor: int
    mode: str

    @classmethod
    def of(cls, conv: nn.Conv2d, factor: int, mode: str) -> Enlarged:
        return cls(_pair(conv.kernel_size), _pair(conv.dilation), factor, mode)

    @property
    def reach(self) -> int:
        return math.ceil(_span(self.kernel_size, self.dilation) / self.factor)

    def __call__(self, x: Tensor) -> Tensor:
        enlarged = resize(self.mode, self.factor)(x)
        y = F.conv2d(enlarged, single_taps(*self.kernel_size), None, 1, "same", self.dilation)
        return period(y, self.factor)


@functools.cache
def upsampling_projection(old: Respond, factor: int, mode: str, size: int) -> Tensor:
    """(old taps, size²): maps a coupled kernel to the best size x size kernel in front of the interpolation."""

    def decoupled(x: Tensor) -> Tensor:
        return period(resize(mode, factor)(convolve_taps(x, size)), factor)

    return projection(old, decoupled, window=2 * max(size, old.reach) + 5)


def shuffled_taps(weight: Tensor, factor: int) -> Tensor:
    """(O·r², I, k, k) → (O, I, r²·k, k): the taps of all phases in a row."""
    outputs, inputs, height, width = weight.shape
    phases = weight.view(outputs // factor**2, factor**2, inputs, height, width)
    return phases.transpose(1, 2).reshape(outputs // factor**2, inputs, factor**2 * height, width)
