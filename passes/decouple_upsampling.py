"""Convolve first, then enlarge.

A transposed convolution, a convolution with pixel shuffle behind it, or a convolution of an enlarged tensor becomes a
cheap convolution at the low resolution and an interpolation (MOFA, section 3.5).
"""

from __future__ import annotations

import copy
import functools
from collections import OrderedDict
from collections.abc import Mapping
from fractions import Fraction
from typing import ClassVar, Literal, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from mofa_compiler import inherit
from mofa_compiler.layers import PConv2d
from mofa_compiler.network import Network
from mofa_compiler.options import FROZEN, Portion, convolved_channels
from mofa_compiler.rewriting import Match, Pass, Replacement, Skip
from mofa_compiler.survey import Layer, Step, keeps_size


@dataclass(frozen=True, config=FROZEN)
class DecoupleUpsampling(Pass):
    """Replace coupled upsampling by a convolution (3x3, then pointwise) and an interpolation behind it.

    Covers ConvTranspose2d that enlarges by a whole factor (k2s2, k4s2p1, k3s2p1 with output padding 1, ...),
    convolution + pixel shuffle, and upsample + convolution. A 1x1 convolution behind an interpolation commutes
    with it: exact.

    Options:
        mode: interpolation, `bilinear` (align_corners=False) or `nearest`.
        convolution: the 3x3 one: `pconv`, `separable` (depthwise) or `dense` (which then needs no pointwise one).
        portion: share of the channels that a `pconv` convolves.
        pointwise_bias: `keep` the old bias there, or `drop` it as the paper's authors did.
    """

    name: ClassVar[str] = "decouple-upsampling"
    after: ClassVar[tuple[str, ...]] = ("restore-kernels",)

    mode: Literal["bilinear", "nearest"] = "bilinear"
    convolution: Literal["pconv", "separable", "dense"] = "pconv"
    portion: Portion = Fraction(1, 4)
    pointwise_bias: Literal["keep", "drop"] = "keep"

    def match(self, layer: Layer, network: Network) -> Match | Skip | None:
        if isinstance(layer.module, nn.ConvTranspose2d):
            return self._match_transposed(layer)
        if type(layer.module) is PConv2d:  # what can be moved is found by the pointwise convolution behind it
            missed = near_miss(layer)
            return Skip(missed) if missed else None
        if not isinstance(layer.module, nn.Conv2d):
            return None
        if layer.behind and layer.behind[0].kind == "shuffle":
            reason = self._refusal(layer, layer.behind[0].factor)
        elif step := resized(layer):
            reason = self._refusal(layer, step.factor)
        else:
            missed = near_miss(layer)
            return Skip(missed) if missed else None
        return Skip(reason) if reason else self._matched(layer.module.in_channels)

    def _match_transposed(self, layer: Layer) -> Match | Skip:
        conv = layer.module
        assert isinstance(conv, nn.ConvTranspose2d)
        if type(conv) is not nn.ConvTranspose2d:
            return Skip(f"is a {type(conv).__name__}, a subclass of ConvTranspose2d whose behaviour is not known")
        if conv.groups != 1:
            return Skip(f"is grouped (groups={conv.groups})")
        if any(len(node.args) > 1 or node.kwargs for node in layer.nodes):
            return Skip("is called with an output_size")
        factor = enlargement(conv)
        if factor is None:
            return Skip("does not enlarge by a whole factor")
        return self._matched(conv.in_channels)

    def _refusal(self, layer: Layer, factor: int | None) -> str | None:
        conv = layer.module
        assert isinstance(conv, nn.Conv2d)
        if type(conv) is not nn.Conv2d:
            return f"is a {type(conv).__name__}, a subclass of Conv2d whose behaviour is not known"
        if conv.groups != 1:
            return f"is grouped (groups={conv.groups})"
        if not keeps_size(conv):
            return "changes the size itself"
        if len(set(conv.kernel_size)) > 1:
            return f"its kernel {conv.kernel_size} is not square"
        partial = partial_between(layer)
        if partial and not is_simple(partial.conv):
            return "the partial convolution in front of it has a dilated, even or oblong kernel"
        if factor is None or factor < 2:
            return "is enlarged to a size or by a fraction, not by a whole factor"
        return None

    def _matched(self, channels: int) -> Match:
        return Match(convolved_channels(channels, self.portion)[1] if self.convolution == "pconv" else "")

    def build(self, layer: Layer, modules: Mapping[str, nn.Module]) -> Replacement:
        old = modules[layer.path]
        assert isinstance(old, (nn.Conv2d, nn.ConvTranspose2d))
        weight, bias = old.weight.detach(), old.bias
        size = (old.kernel_size[0], old.kernel_size[1])
        bypassed: tuple[str, ...] = ()
        kernel = 3
        respond: Respond
        if isinstance(old, nn.ConvTranspose2d):
            factor = enlargement(old) or 0
            taps = weight.transpose(0, 1)
            respond = _Transposed(size, *map(_pair, (old.stride, old.padding, old.output_padding, old.dilation)))
        elif layer.behind and layer.behind[0].kind == "shuffle":
            factor, bypassed = layer.behind[0].factor or 0, (layer.behind[0].node,)
            kernel = max(kernel, size[0] // 2 * 2 + 1)
            taps = _shuffled_taps(weight, factor)
            bias = None if bias is None else bias.detach().view(-1, factor**2).mean(1)
            respond = _Shuffled(size, _pair(old.dilation), factor)
        else:
            step = resized(layer)
            assert step is not None
            if layer.is_1x1:
                return self._commuted(layer, step, modules)
            factor, bypassed = step.factor or 0, (step.node,)
            kernel = max(kernel, size[0] // 2 * 2 + 1)
            taps = weight
            respond = _Enlarged(size, _pair(old.dilation), factor, str(step.mode))
        target = taps.flatten(2).double()
        many, one = (target @ _projection(respond, factor, self.mode, k).to(target) for k in (kernel, 1))
        mixed_before = layer.is_1x1 and layer.source is not None and type(layer.source.module) is PConv2d
        body = inherit.cheap_convolution(
            many.view(*many.shape[:2], kernel, kernel),
            one[..., 0],
            kind="pointwise" if mixed_before else self.convolution,
            portion=self.portion,
            bias=bias if self.pointwise_bias == "keep" else None,
            like=weight,
            padding_mode=old.padding_mode if isinstance(old, nn.Conv2d) else "zeros",
        )
        body["upsample"] = resize(factor, self.mode)
        return Replacement(nn.Sequential(body), bypassed=bypassed)

    def _commuted(self, layer: Layer, step: Step, modules: Mapping[str, nn.Module]) -> Replacement:
        """A 1x1 convolution mixes channels, an interpolation pixels (weights sum to 1): either may go first.

        A partial convolution in between is fitted to the lower resolution.
        """
        conv, factor, mode = modules[layer.path], step.factor or 0, str(step.mode)
        kept = copy.deepcopy(conv) if self.pointwise_bias == "keep" else inherit.without_bias(conv)
        between = partial_between(layer) is not None
        body = nn.Sequential(OrderedDict(pointwise=kept, upsample=resize(factor, self.mode if between else mode)))
        if between and layer.source:
            path = layer.source.path
            return Replacement(
                body, compensated={path: self._fitted(modules[path], factor, mode)}, bypassed=(step.node,)
            )
        exact = self.pointwise_bias == "keep" or conv.bias is None
        reference = nn.Sequential(resize(factor, mode), conv)
        fate = "exact" if exact else "inherited"
        return Replacement(body, fate=fate, exact=exact, reference=reference, bypassed=(step.node,))

    def _fitted(self, partial: nn.Module, factor: int, mode: str) -> nn.Module:
        """A copy of a partial convolution of an enlarged tensor, its kernel fitted to the tensor before it."""
        new = copy.deepcopy(partial)
        assert isinstance(new, PConv2d)
        size = new.conv.kernel_size[0]
        matrix = _projection(_Enlarged((size, size), (1, 1), factor, mode), factor, self.mode, size)
        taps = new.conv.weight.detach().flatten(2).double()
        inherit.fill(new.conv.weight, (taps @ matrix.to(taps)).view_as(new.conv.weight))
        return new


def is_simple(conv: nn.Conv2d) -> bool:
    """Whether a kernel is square and odd and its taps lie next to one another."""
    return len(set(conv.kernel_size)) == 1 and conv.kernel_size[0] % 2 == 1 and set(conv.dilation) == {1}


def resized(layer: Layer) -> Step | None:
    """The interpolation that this layer alone reads; for a pointwise one also through a partial convolution."""
    chain = layer.source.before if partial_between(layer) and layer.source else layer.before
    return chain[0] if chain and chain[0].kind == "resize" else None


def near_miss(layer: Layer) -> str | None:
    """Why an upsampling close to a convolution cannot be taken apart from it; None where there is none close by."""
    for chain, kind, name in ((layer.behind, "shuffle", "pixel shuffle"), (layer.before, "resize", "upsampling")):
        kinds = [step.kind for step in chain if step.kind != "identity"]
        if kind in kinds[1:] and set(kinds[: kinds.index(kind)]) <= {"norm", "activation"}:
            return f"there is a layer ({kinds[0]}) between it and the {name}"
    if layer.fed_by and layer.fed_by.kind == "resize" and not layer.before:
        return "the upsampling that it reads is read by others too"
    return None


def partial_between(layer: Layer) -> PConv2d | None:
    """The partial convolution between an interpolation and this pointwise layer."""
    source = layer.source
    if not layer.is_1x1 or source is None or type(source.module) is not PConv2d:
        return None
    return source.module if source.before and source.before[0].kind == "resize" else None


def enlargement(conv: nn.ConvTranspose2d) -> int | None:
    """The whole factor by which a transposed convolution enlarges every input, or None."""
    excess = {
        conv.dilation[i] * (conv.kernel_size[i] - 1)
        + 1
        + conv.output_padding[i]
        - 2 * int(conv.padding[i])
        - conv.stride[i]
        for i in range(2)
    }
    factor, other = conv.stride
    return factor if factor == other and factor > 1 and excess == {0} else None


def resize(factor: int, mode: str) -> nn.Upsample:
    """An interpolation by a factor; `mode` as in `Step.mode`."""
    kind, _, aligned = mode.partition(", ")
    corners = bool(aligned) if kind in ("bilinear", "bicubic") else None
    return nn.Upsample(scale_factor=factor, mode=kind, align_corners=corners)


def _pair(values: tuple[int, ...] | str) -> tuple[int, int]:
    return int(values[0]), int(values[1])


class Respond(Protocol):
    """A coupled upsampling's geometry: unit impulses (n, 1, h, w) to the responses (n, taps, pixels) of its taps."""

    @property
    def kernel_size(self) -> tuple[int, int]: ...
    @property
    def dilation(self) -> tuple[int, int]: ...
    def __call__(self, x: Tensor) -> Tensor: ...


class _Transposed(NamedTuple):
    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    output_padding: tuple[int, int]
    dilation: tuple[int, int]

    def __call__(self, x: Tensor) -> Tensor:
        taps = inherit.single_taps(*self.kernel_size).transpose(0, 1)
        y = F.conv_transpose2d(x, taps, None, self.stride, self.padding, self.output_padding, dilation=self.dilation)
        return inherit.period(y, self.stride[0])


class _Shuffled(NamedTuple):
    kernel_size: tuple[int, int]
    dilation: tuple[int, int]
    factor: int

    def __call__(self, x: Tensor) -> Tensor:
        """Every output pixel of a period has taps of its own: (n, phases * taps, phases)."""
        y = F.conv2d(x, inherit.single_taps(*self.kernel_size), None, 1, "same", self.dilation)
        phases = torch.eye(self.factor**2, dtype=y.dtype)
        return torch.einsum("nti,pq->nptq", inherit.period(y, 1), phases).flatten(1, 2)


class _Enlarged(NamedTuple):
    kernel_size: tuple[int, int]
    dilation: tuple[int, int]
    factor: int
    mode: str

    def __call__(self, x: Tensor) -> Tensor:
        enlarged = resize(self.factor, self.mode)(x)
        y = F.conv2d(enlarged, inherit.single_taps(*self.kernel_size), None, 1, "same", self.dilation)
        return inherit.period(y, self.factor)


@functools.cache
def _projection(old: Respond, factor: int, mode: str, size: int) -> Tensor:
    """(old taps, size²): maps a coupled kernel to the best size x size kernel in front of the interpolation."""

    def decoupled(x: Tensor) -> Tensor:
        return inherit.period(resize(factor, mode)(inherit.convolve_taps(x, size)), factor)

    reach = max(size, *(d * k for d, k in zip(old.dilation, old.kernel_size, strict=True)))
    return inherit.projection(old, decoupled, window=2 * reach + 5)


def _shuffled_taps(weight: Tensor, factor: int) -> Tensor:
    """(O·r², I, k, k) → (O, I, r²·k, k): the taps of all phases in a row."""
    outputs, inputs, height, width = weight.shape
    phases = weight.view(outputs // factor**2, factor**2, inputs, height, width)
    return phases.transpose(1, 2).reshape(outputs // factor**2, inputs, factor**2 * height, width)
