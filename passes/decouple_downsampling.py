"""Average first, then convolve.

A strided convolution becomes an average pooling and a stride-1 convolution (MOFA, section 3.5).
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import ClassVar, Literal, NamedTuple, TypeAlias, get_args

import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from mofa_compiler import weights
from mofa_compiler.analysis.layers import Layer
from mofa_compiler.analysis.network import Network
from mofa_compiler.nn.partial_conv import PConv2d
from mofa_compiler.rewriting import (
    FROZEN,
    Match,
    Pass,
    Portion,
    Replacement,
    Skip,
    convolved_channels,
    unknown_subclass,
)

_Convolution: TypeAlias = Literal["pconv", "separable", "dense"]


@dataclass(frozen=True, config=FROZEN)
class DecoupleDownsampling(Pass):
    """Replace strided convolutions by average pooling and a stride-1 convolution.

    An odd kernel keeps its size, an even one becomes 3x3. A dense convolution gets a pointwise one behind it.

    Options:
        convolution: `pconv`, `separable` (depthwise) or `dense` (only where the old one is).
        portion: share of the channels that a `pconv` convolves.
        pointwise_bias: `keep`, or `drop` as the paper's authors did.
    """

    name: ClassVar[str] = "decouple-downsampling"

    convolution: _Convolution = "pconv"
    portion: Portion = Fraction(1, 4)
    pointwise_bias: Literal["keep", "drop"] = "keep"

    def alternatives(self, layer: Layer, network: Network, *, bounded: bool = False) -> Sequence[Pass]:
        return [replace(self, convolution=kind) for kind in get_args(_Convolution)]

    def match(self, layer: Layer, network: Network) -> Match | Skip | None:
        conv = layer.module
        if not isinstance(conv, nn.Conv2d) or layer.stride == (1, 1):
            return None
        if unknown := unknown_subclass(conv, nn.Conv2d):
            return unknown
        if layer.is_1x1:
            return Skip("pointwise", "has a 1x1 kernel")
        if not (layer.is_depthwise or layer.is_dense):
            return Skip("grouped", f"is a grouped convolution (groups={conv.groups})")
        if len(set(conv.kernel_size)) > 1:
            return Skip("kernel", f"its kernel {conv.kernel_size} is not square")
        if pooling(conv) is None:
            return Skip(
                "factor",
                f"its output size (kernel {conv.kernel_size}, stride {conv.stride}, padding {conv.padding}) is not "
                "that of a pooling by its stride",
            )
        if conv.stride[0] > 4:
            reason = f"shrinks by {conv.stride[0]} at once, of which an average would leave too little"
            return Skip("too-far", reason)
        if not weights.wraps_around(conv, layer.output_shape[-2:]):
            return Skip("padding", "its circular padding is wider than what a pooling leaves")
        _, note = convolved_channels(conv.in_channels, self.portion)
        return Match(note if self.convolution == "pconv" else "")

    def build(self, layer: Layer, modules: Mapping[str, nn.Module]) -> Replacement:
        old = modules[layer.path]
        pool = pooling(old)
        assert isinstance(old, nn.Conv2d) and pool is not None
        keep = self.pointwise_bias == "keep"
        weight = old.weight.detach()
        kernel = old.kernel_size[0] if old.kernel_size[0] % 2 else 3
        taps = weight.flatten(2).double()
        projection_to = functools.partial(_projection, _Geometry.of(old))
        many, one = (weights.projected(taps, size, projection_to) for size in (kernel, 1))
        many = many.view(*many.shape[:2], kernel, kernel)
        if layer.is_dense:
            body = weights.cheap_convolution(
                many,
                one[..., 0],
                kind=self.convolution,
                portion=self.portion,
                bias=old.bias if keep else None,
                like=weight,
                padding_mode=weights.border(old),
            )
            return Replacement(nn.Sequential(OrderedDict(pool=pool, **body)))
        many = many.to(weight)
        if self.convolution != "pconv":
            depthwise = weights.depthwise_like(many, old)
            return Replacement(nn.Sequential(OrderedDict(pool=pool, depthwise=depthwise)))
        c, _ = convolved_channels(old.in_channels, self.portion)
        spatial = PConv2d(
            old.in_channels,
            c,
            kernel,
            padding_mode=weights.border(old),
            bias=keep and old.bias is not None,
            device=weight.device,
            dtype=weight.dtype,
        )
        folding, ideal = weights.separable_from_depthwise(
            layer, many, old.bias, spatial, modules, drop_bias=not keep, untouched_gains=one[:, 0, 0]
        )
        new = nn.Sequential(OrderedDict(pool=pool, pconv=spatial))
        return Replacement(new, compensated=folding.neighbours, stands_for=ideal, note=folding.note)


def pooling(conv: nn.Module) -> nn.AvgPool2d | None:
    """The average pooling with the output size of a strided convolution at every input size, or None."""
    if not isinstance(conv, nn.Conv2d) or len(set(conv.stride)) > 1 or isinstance(conv.padding, str):
        return None
    stride = conv.stride[0]
    excess = {
        2 * p - d * (k - 1) - 1 + s
        for k, s, p, d in zip(conv.kernel_size, conv.stride, conv.padding, conv.dilation, strict=True)
    }
    if excess == {0}:
        return nn.AvgPool2d(stride)
    if excess == {stride - 1}:
        return nn.AvgPool2d(stride, ceil_mode=True)
    return None


class _Geometry(NamedTuple):
    """All that the best kernel behind a pooling depends on."""

    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    ceil_mode: bool

    @classmethod
    def of(cls, conv: nn.Conv2d) -> _Geometry:
        pool = pooling(conv)
        assert pool is not None and not isinstance(conv.padding, str)
        kernel, stride = (conv.kernel_size[0], conv.kernel_size[1]), (conv.stride[0], conv.stride[1])
        padding, dilation = (conv.padding[0], conv.padding[1]), (conv.dilation[0], conv.dilation[1])
        return cls(kernel, stride, padding, dilation, pool.ceil_mode)


@functools.cache
def _projection(old: _Geometry, size: int) -> Tensor:
    """(old taps, size²): maps a strided kernel to the best size x size kernel behind the pooling."""
    factor = old.stride[0]
    reach = max(factor * size, *(d * k for d, k in zip(old.dilation, old.kernel_size, strict=True)))
    window = factor * (2 * reach // factor + 2)  # a whole number of outputs, the middle one far from the border

    def strided(x: Tensor) -> Tensor:
        y = F.conv2d(x, weights.single_taps(*old.kernel_size), None, old.stride, old.padding, old.dilation)
        return weights.period(y, 1)

    def pooled(x: Tensor) -> Tensor:
        return weights.period(weights.convolve_taps(F.avg_pool2d(x, factor, ceil_mode=old.ceil_mode), size), 1)

    return weights.projection(strided, pooled, window)
