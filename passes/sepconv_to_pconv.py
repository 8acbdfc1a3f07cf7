"""Replace separable and dense convolutions by partial ones.

A partial convolution reads and writes a quarter of the channels and leaves the others where they are; the pointwise
convolution behind it mixes them all (MOFA, section 3.2).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from fractions import Fraction
from typing import ClassVar, Literal

from pydantic.dataclasses import dataclass
from torch import nn

from mofa_compiler import weights
from mofa_compiler.analysis.layers import Layer, keeps_size
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


@dataclass(frozen=True, config=FROZEN)
class SepConvToPConv(Pass):
    """Replace stride-1 depthwise and dense k>1 convolutions by `PConv2d`, a dense one with a pointwise one behind it.

    Options:
        portion: share of the channels that is convolved.
        kinds: which convolutions, `depthwise` (with or without a pointwise one behind), `dense`.
        pointwise_bias: `keep`, or `drop` the bias of the pointwise convolution (of a lone PConv: its own) as the
            paper's authors did.
    """

    name: ClassVar[str] = "sepconv-to-pconv"

    portion: Portion = Fraction(1, 4)
    kinds: tuple[Literal["depthwise", "dense"], ...] = ("depthwise", "dense")
    pointwise_bias: Literal["keep", "drop"] = "keep"

    def match(self, layer: Layer, network: Network) -> Match | Skip | None:
        conv = layer.module
        if not isinstance(conv, nn.Conv2d) or layer.is_1x1:
            return None
        kind = "depthwise" if conv.groups == conv.in_channels > 1 else "dense"
        if kind not in self.kinds:
            return None
        if unknown := unknown_subclass(conv, nn.Conv2d):
            return unknown
        if layer.stride != (1, 1):
            return Skip("resolution", "changes the resolution")
        if not (layer.is_depthwise or layer.is_dense):
            shape = f"{conv.in_channels}→{conv.out_channels}, groups={conv.groups}"
            return Skip("grouped", f"is a grouped convolution ({shape})")
        if not keeps_size(conv):
            reason = f"its padding {conv.padding} changes the size, which untouched channels cannot follow"
            return Skip("padding", reason)
        if conv.in_channels == 1:
            return Skip("one-channel", "has a single channel")
        if any(k % 2 == 0 and d > 1 for k, d in zip(conv.kernel_size, conv.dilation, strict=True)):
            return Skip("kernel", "its even, dilated kernel has no tap at the center, where untouched channels pass")
        _, note = convolved_channels(conv.in_channels, self.portion)
        return Match(note)

    def build(self, layer: Layer, modules: Mapping[str, nn.Module]) -> Replacement:
        old = modules[layer.path]
        assert isinstance(old, nn.Conv2d)
        keep = self.pointwise_bias == "keep"
        c, _ = convolved_channels(old.in_channels, self.portion)
        new = PConv2d(
            old.in_channels,
            c,
            (old.kernel_size[0], old.kernel_size[1]),
            dilation=(old.dilation[0], old.dilation[1]),
            padding_mode=old.padding_mode,
            bias=layer.is_depthwise and keep and old.bias is not None,
            device=old.weight.device,
            dtype=old.weight.dtype,
        )
        if layer.is_dense:
            pointwise = nn.Conv2d(
                old.in_channels,
                old.out_channels,
                1,
                bias=keep and old.bias is not None,
                device=old.weight.device,
                dtype=old.weight.dtype,
            )
            weights.factor_dense(old.weight.detach(), new, pointwise)
            if pointwise.bias is not None and old.bias is not None:
                weights.fill(pointwise.bias, old.bias.detach())
            return Replacement(nn.Sequential(OrderedDict(pconv=new, pointwise=pointwise)))
        folding, ideal = weights.separable_from_depthwise(
            layer, old.weight.detach(), old.bias, new, modules, drop_bias=not keep
        )
        return Replacement(new, compensated=folding.neighbours, stands_for=ideal, note=folding.note)
