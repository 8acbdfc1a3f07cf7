"""Convolve first, then enlarge.

A transposed convolution, a convolution with pixel shuffle behind it, or a convolution of an enlarged tensor becomes a
cheap convolution at the low resolution and an interpolation (MOFA, section 3.5).
"""

from __future__ import annotations

import copy
import functools
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import ClassVar, Literal, TypeAlias, get_args

from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from mofa_compiler import weights
from mofa_compiler.analysis.layers import Layer, Step, keeps_size, nearest
from mofa_compiler.analysis.network import Network
from mofa_compiler.analysis.nodes import is_plain
from mofa_compiler.nn.partial_conv import PConv2d
from mofa_compiler.rewriting import (
    FROZEN,
    Fate,
    Match,
    Moved,
    Pass,
    Portion,
    Replacement,
    Skip,
    convolved_channels,
    unknown_subclass,
)

_Convolution: TypeAlias = Literal["pconv", "separable", "dense"]


@dataclass(frozen=True, config=FROZEN)
class DecoupleUpsampling(Pass):
    """Replace coupled upsampling by a convolution (3x3, then pointwise) and an interpolation behind it.

    Covers ConvTranspose2d that enlarges by a whole factor (k2s2, k4s2p1, k3s2p1 with output padding 1, ...), dense or
    depthwise, convolution + pixel shuffle, and upsample (by a factor or to a size) + convolution. A 1x1 convolution
    behind an interpolation commutes with it: exact.

    Options:
        mode: interpolation, `bilinear` (align_corners=False) or `nearest`.
        convolution: the 3x3 one: `pconv`, `separable` (depthwise) or `dense` (which then needs no pointwise one).
        portion: share of the channels that a `pconv` convolves.
        pointwise_bias: `keep` the old bias there, or `drop` it as the paper's authors did.
    """

    name: ClassVar[str] = "decouple-upsampling"
    after: ClassVar[tuple[str, ...]] = ("restore-kernels",)

    mode: Literal["bilinear", "nearest"] = "bilinear"
    convolution: _Convolution = "pconv"
    portion: Portion = Fraction(1, 4)
    pointwise_bias: Literal["keep", "drop"] = "keep"

    def alternatives(self, layer: Layer, network: Network, *, bounded: bool = False) -> Sequence[Pass]:
        return [replace(self, convolution=kind) for kind in get_args(_Convolution)]

    def match(self, layer: Layer, network: Network) -> Match | Skip | None:
        conv = layer.module
        if isinstance(conv, nn.ConvTranspose2d):
            why = _refuse_transposed(layer)
        elif isinstance(conv, nn.Conv2d) and (step := enlarged_behind(layer) or enlarged_before(layer)):
            why = _refuse(layer, step)
        elif isinstance(conv, nn.Conv2d) or type(conv) is PConv2d:  # a PConv is moved with the pointwise one behind it
            return near_miss(layer)
        else:
            return None
        if why:
            return why
        assert isinstance(conv, (nn.Conv2d, nn.ConvTranspose2d))
        return Match(convolved_channels(conv.in_channels, self.portion)[1] if self.convolution == "pconv" else "")

    def build(self, layer: Layer, modules: Mapping[str, nn.Module]) -> Replacement:
        old = modules[layer.path]
        assert isinstance(old, (nn.Conv2d, nn.ConvTranspose2d))
        weight, bias = old.weight.detach(), old.bias
        transposed = isinstance(old, nn.ConvTranspose2d)  # enlarges by itself, whatever stands before or behind it
        step = None if transposed else enlarged_behind(layer) or enlarged_before(layer)
        kernel = 3
        respond: weights.Respond
        if isinstance(old, nn.ConvTranspose2d):
            factor = enlargement(old) or 0
            taps = weight if old.groups > 1 else weight.transpose(0, 1)
            respond = weights.Transposed.of(old)
        else:
            assert step is not None
            if step.kind == "resize" and layer.is_1x1:
                return self._commuted(layer, step, modules)
            factor = step.factor or step.to_size or 0
            kernel = max(kernel, old.kernel_size[0] // 2 * 2 + 1)
            if step.kind == "shuffle":
                taps = weights.shuffled_taps(weight, factor)
                bias = None if bias is None else bias.detach().view(-1, factor**2).mean(1)
                respond = weights.Shuffled.of(old, factor)
            else:
                taps = weight
                respond = weights.Enlarged.of(old, factor, str(step.mode))
        target = taps.flatten(2).double()
        projection_to = functools.partial(weights.upsampling_projection, respond, factor, self.mode)
        many, one = (weights.projected(target, size, projection_to) for size in (kernel, 1))
        many = many.view(*many.shape[:2], kernel, kernel)
        if old.groups > 1:
            return self._depthwise(layer, many, one[:, 0, 0], factor, modules)
        mixed_before = layer.is_1x1 and layer.source is not None and is_plain(layer.source.module, PConv2d)
        body = weights.cheap_convolution(
            many,
            one[..., 0],
            kind="pointwise" if mixed_before else self.convolution,
            portion=self.portion,
            bias=bias if self.pointwise_bias == "keep" else None,
            like=weight,
            padding_mode=weights.border(old),
        )
        return self._enlarged(body, step, factor)

    def _enlarged(self, body: OrderedDict[str, nn.Module], step: Step | None, factor: int) -> Replacement:
        """Modules with an interpolation behind them, instead of the enlarging `step`."""
        if step is None or step.factor:
            body["upsample"] = weights.resize(self.mode, factor)
            return Replacement(nn.Sequential(body), bypassed=(step.node,) if step else ())
        note = f"fitted to an enlargement by {factor}, which it is at the example size"
        upsample = weights.resize_like(step, self.mode)
        if step.module is None:
            return Replacement(nn.Sequential(body), moved=Moved(step.node, upsample), note=note)
        body["upsample"] = upsample
        return Replacement(nn.Sequential(body), bypassed=(step.node,), note=note)

    def _depthwise(
        self, layer: Layer, kernels: Tensor, gains: Tensor, factor: int, modules: Mapping[str, nn.Module]
    ) -> Replacement:
        """A depthwise transposed convolution keeps its channels apart."""
        old = modules[layer.path]
        assert isinstance(old, nn.ConvTranspose2d)
        keep, upsample = self.pointwise_bias == "keep", weights.resize(self.mode, factor)
        if self.convolution != "pconv":
            depthwise = weights.depthwise_like(kernels, old)
            return Replacement(nn.Sequential(OrderedDict(depthwise=depthwise, upsample=upsample)))
        c, _ = convolved_channels(old.in_channels, self.portion)
        spatial = PConv2d(
            old.in_channels,
            c,
            kernels.shape[-1],
            bias=keep and old.bias is not None,
            device=old.weight.device,
            dtype=old.weight.dtype,
        )
        folding, ideal = weights.separable_from_depthwise(
            layer, kernels.to(old.weight), old.bias, spatial, modules, drop_bias=not keep, untouched_gains=gains
        )
        new = nn.Sequential(OrderedDict(pconv=spatial, upsample=upsample))
        return Replacement(new, compensated=folding.neighbours, stands_for=ideal, note=folding.note)

    def _commuted(self, layer: Layer, step: Step, modules: Mapping[str, nn.Module]) -> Replacement:
        """A 1x1 convolution mixes channels, an interpolation pixels (weights sum to 1): either may go first.

        A partial convolution in between is fitted to the lower resolution.
        """
        conv = modules[layer.path]
        kept = copy.deepcopy(conv) if self.pointwise_bias == "keep" else weights.without_bias(conv)
        if partial_between(layer) and layer.source:
            path, factor = layer.source.path, step.factor or step.to_size or 0
            fitted = {path: self._fitted(modules[path], factor, str(step.mode))}
            return replace(self._enlarged(OrderedDict(pointwise=kept), step, factor), compensated=fitted)
        exact = self.pointwise_bias == "keep" or conv.bias is None
        upsample = weights.resize_like(step, str(step.mode))
        behind = Replacement(kept, moved=Moved(step.node, upsample))
        if step.module or step.factor:
            body = nn.Sequential(OrderedDict(pointwise=kept, upsample=upsample))
            behind = Replacement(body, bypassed=(step.node,))
        reference = nn.Sequential(upsample, conv)
        return replace(behind, fate=Fate.EXACT if exact else Fate.INHERITED, exact=exact, reference=reference)

    def _fitted(self, partial: nn.Module, factor: int, mode: str) -> nn.Module:
        """A copy of a partial convolution of an enlarged tensor, its kernel fitted to the tensor before it."""
        new = copy.deepcopy(partial)
        assert isinstance(new, PConv2d)
        respond = weights.Enlarged.of(new.conv, factor, mode)
        projection_to = functools.partial(weights.upsampling_projection, respond, factor, self.mode)
        taps = new.conv.weight.detach().flatten(2).double()
        fitted = weights.projected(taps, new.conv.kernel_size[0], projection_to)
        weights.fill(new.conv.weight, fitted.view_as(new.conv.weight))
        return new


def _refuse_transposed(layer: Layer) -> Skip | None:
    """Why a transposed convolution cannot be taken apart."""
    conv = layer.module
    assert isinstance(conv, nn.ConvTranspose2d)
    if unknown := unknown_subclass(conv, nn.ConvTranspose2d):
        return unknown
    if conv.groups != 1 and not conv.groups == conv.in_channels == conv.out_channels:
        return Skip("grouped", f"is grouped (groups={conv.groups})")
    if not layer.function and any(len(node.args) > 1 or node.kwargs for node in layer.nodes):
        return Skip("geometry", "is called with an output_size")
    factor = enlargement(conv)
    if factor is None:
        return Skip("factor", "does not enlarge by a whole factor")
    too_much = f"enlarges by {factor} at once, more than a 3x3 kernel in front can stand for"
    return None if factor <= 4 else Skip("too-far", too_much)


def _refuse(layer: Layer, step: Step) -> Skip | None:
    """Why a convolution cannot be taken apart from the upsampling next to it."""
    conv = layer.module
    assert isinstance(conv, nn.Conv2d)
    partial = partial_between(layer)
    if unknown := unknown_subclass(conv, nn.Conv2d):
        return unknown
    if conv.groups != 1:
        return Skip("grouped", f"is grouped (groups={conv.groups})")
    if not keeps_size(conv):
        return Skip("resolution", "changes the size itself")
    if len(set(conv.kernel_size)) > 1:
        return Skip("kernel", f"its kernel {conv.kernel_size} is not square")
    if partial and not is_simple(partial.conv):
        return Skip("neighbour", "the partial convolution in front of it has a dilated, even or oblong kernel")
    factor = step.factor or step.to_size or 1
    if not weights.wraps_around(conv, tuple(size // factor for size in layer.output_shape[-2:])):
        return Skip("padding", "its circular padding is wider than the tensor before the upsampling")
    if step.measured:
        reason = "the network asks for the size between it and the upsampling, which would be another one"
        return Skip("size-asked", reason)
    if step.kind == "resize" and not step.enlarges:
        return Skip("not-enlarged", "reads a tensor that is resized, but not enlarged")
    commutes = step.kind == "resize" and layer.is_1x1 and not partial
    if not commutes and factor < 2:
        return Skip("factor", "is enlarged by a fraction, not by a whole factor")
    return None


def is_simple(conv: nn.Conv2d) -> bool:
    """Whether a kernel is square and odd and its taps lie next to one another."""
    return len(set(conv.kernel_size)) == 1 and conv.kernel_size[0] % 2 == 1 and set(conv.dilation) == {1}


def enlarged_behind(layer: Layer) -> Step | None:
    """The pixel shuffle that alone reads this layer."""
    step = layer.follower
    return step if step and step.kind == "shuffle" else None


def enlarged_before(layer: Layer) -> Step | None:
    """The interpolation that this layer alone reads; for a pointwise one also through a partial convolution."""
    step = layer.feeder
    if partial_between(layer) and step and layer.source and (first := layer.source.feeder):
        step = replace(first, measured=first.measured or step.measured)
    return step if step and step.kind == "resize" else None


def partial_between(layer: Layer) -> PConv2d | None:
    """The partial convolution between an interpolation and this pointwise layer."""
    source = layer.source
    if not layer.is_1x1 or source is None or not is_plain(source.module, PConv2d):
        return None
    return source.module if source.feeder and source.feeder.kind == "resize" else None


def near_miss(layer: Layer) -> Skip | None:
    """Why an upsampling close to a convolution cannot be taken apart from it; None where there is none close by."""
    for chain, kind, name in ((layer.behind, "shuffle", "pixel shuffle"), (layer.before, "resize", "upsampling")):
        kinds = [step.kind for step in chain if step.kind != "identity"]
        if kind in kinds[1:] and set(kinds[: kinds.index(kind)]) <= {"norm", "activation"}:
            return Skip("between", f"there is a layer ({kinds[0]}) between it and the {name}")
    if len(layer.sites) > 1:
        around = [step for site in layer.sites for step in (nearest(site.behind), site.fed_by) if step]
        if {step.kind for step in around} & {"shuffle", "resize"}:
            reason = f"is called {len(layer.sites)} times, and the upsampling next to it may differ"
            return Skip("called-twice", reason)
    for step in (site.fed_by for site in layer.sites):
        if step and step.kind == "resize" and not layer.before:
            return Skip("read-elsewhere", "the upsampling that it reads is read by others too")
        if step and "resize" in step.joins:
            return Skip("joined", "the upsampling that it reads is joined with other channels first")
    return None


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
