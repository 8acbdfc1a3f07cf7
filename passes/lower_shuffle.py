"""Write pixels where they belong at once.

A convolution that makes r² times the channels, and a pixel shuffle that moves them to their places, write every value
twice. A transposed convolution with stride r computes the same and writes it once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import nn

from mofa_compiler import weights
from mofa_compiler.analysis.layers import Layer
from mofa_compiler.analysis.network import Network
from mofa_compiler.rewriting import FROZEN, Fate, Lowering, Match, Replacement, Skip


@dataclass(frozen=True, config=FROZEN)
class LowerShuffle(Lowering):
    """Replace convolution + pixel shuffle by one transposed convolution.

    A bias has to be the same for all r² channels that become one: a transposed convolution has one for all its pixels.

    Options:
        kernel: largest kernel of the convolution; one of k×k makes a transposed one of (k·r)×(k·r), as many MACs.
    """

    name: ClassVar[str] = "lower-shuffle"
    after: ClassVar[tuple[str, ...]] = ("merge-linear",)

    kernel: Annotated[int, Field(ge=1)] = 1

    def match(self, layer: Layer, network: Network) -> Match | Skip | None:
        conv, step = layer.module, layer.follower
        if type(conv) is not nn.Conv2d or step is None or step.kind != "shuffle" or not step.factor:
            return None
        factor = step.factor
        if step.measured:
            return Skip("size-asked", "the size of its output is asked for")
        if max(conv.kernel_size) > self.kernel:
            return Skip("threshold", f"its kernel {conv.kernel_size} is larger than kernel={self.kernel}")
        plain = conv.stride == (1, 1) == conv.dilation and conv.padding_mode == "zeros"
        if not plain or isinstance(conv.padding, str) or any(p >= k for p, k in _padding(conv)):
            return Skip("geometry", "its stride, dilation or padding is none that a transposed convolution has")
        if conv.out_channels // factor**2 % conv.groups:
            return Skip("grouped", f"its {conv.groups} groups do not hold whole pixels")
        if conv.bias is not None and bool(
            (conv.bias.view(-1, factor**2) != conv.bias.view(-1, factor**2)[:, :1]).any()
        ):
            reason = "its bias differs within a pixel's channels, and a transposed convolution has one for all"
            return Skip("bias", reason)
        return Match()

    def build(self, layer: Layer, modules: Mapping[str, nn.Module]) -> Replacement:
        old, step = modules[layer.path], layer.follower
        assert isinstance(old, nn.Conv2d) and step is not None and step.factor
        factor = step.factor
        (top, height), (left, width) = _padding(old)
        new = nn.ConvTranspose2d(
            old.in_channels,
            old.out_channels // factor**2,
            (height * factor, width * factor),
            factor,
            (factor * (height - 1 - top), factor * (width - 1 - left)),
            groups=old.groups,
            bias=old.bias is not None,
            device=old.weight.device,
            dtype=old.weight.dtype,
        )
        weights.fill(new.weight, weights.unshuffled(old, factor))
        if old.bias is not None and new.bias is not None:
            weights.fill(new.bias, old.bias.detach()[:: factor**2])
        reference = nn.Sequential(old, nn.PixelShuffle(factor))
        return Replacement(new, fate=Fate.EXACT, exact=True, reference=reference, bypassed=(step.node,))


def _padding(conv: nn.Conv2d) -> list[tuple[int, int]]:
    """Padding and kernel size by dimension."""
    assert not isinstance(conv.padding, str)
    return list(zip(conv.padding, conv.kernel_size, strict=True))
