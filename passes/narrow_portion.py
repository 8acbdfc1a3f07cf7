"""Let partial convolutions convolve a smaller portion where a larger one costs much.

The inverse of `widen-portion`: where a stage costs as much as the others, more convolved channels buy few parameters
for many MACs (MOFA, sections 3.3 and 3.4).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass
from torch import nn

from mofa_compiler import weights
from mofa_compiler.analysis.layers import Layer
from mofa_compiler.analysis.network import CHEAP_BELOW, Network
from mofa_compiler.nn.partial_conv import PConv2d
from mofa_compiler.rewriting import FROZEN, Match, Pass, Phase, Portion, Replacement, Skip, as_tuple, convolved_channels

from ._stage_selection import KINDS, check_places, pconv_inside


@dataclass(frozen=True, config=FROZEN)
class NarrowPortion(Pass):
    """Narrow `PConv2d` to a smaller portion. The kernels of the channels that stay are kept.

    What the others lose goes, as well as it can, into the layer behind or before.

    Options:
        where: `elsewhere` (the stages that are neither in the middle nor cheap), `middle`, `cheap`, stage names such as
            `encoder 3`, or globs over layer paths such as `enc3.*`; one or several.
        portion: the largest share of the channels that stays convolved.
        cheap_below: a stage is cheap below this share of the median encoder stage, by the paper's estimate of MACs.
    """

    name: ClassVar[str] = "narrow-portion"
    after: ClassVar[tuple[str, ...]] = (
        "sepconv-to-pconv",
        "widen-portion",
        "decouple-upsampling",
        "decouple-downsampling",
    )
    phase: ClassVar[Phase] = Phase.REDUCE

    where: Annotated[tuple[str, ...] | str, BeforeValidator(as_tuple), Field(min_length=1)] = ("elsewhere",)
    portion: Portion = Fraction(1, 4)
    cheap_below: Annotated[float, Field(gt=0)] = CHEAP_BELOW

    def prepare(self, network: Network) -> None:
        check_places(self.name, as_tuple(self.where), network, ("elsewhere", *KINDS))

    def alternatives(self, layer: Layer, network: Network, *, bounded: bool = False) -> Sequence[Pass]:
        return (replace(self, where=("*",)),)  # measured time decides where, not the stage

    def match(self, layer: Layer, network: Network) -> Match | Skip | None:
        old = pconv_inside(layer, network, as_tuple(self.where), self.cheap_below)
        if not isinstance(old, PConv2d):
            return old
        c, note = convolved_channels(old.channels, self.portion)
        if old.convolved <= c:
            return Skip("done", f"convolves only {old.convolved} of {old.channels} channels")
        if any(k % 2 == 0 and d > 1 for k, d in zip(old.conv.kernel_size, old.conv.dilation, strict=True)):
            return Skip("kernel", "its even, dilated kernel has no tap at the center, where untouched channels pass")
        return Match(note)

    def build(self, layer: Layer, modules: Mapping[str, nn.Module]) -> Replacement:
        old = modules[layer.path]
        assert isinstance(old, PConv2d)
        c, _ = convolved_channels(old.channels, self.portion)
        new = weights.like(old, PConv2d, c)
        owed = weights.narrow(old, new)
        behind = layer.follower
        if behind and behind.is_pointwise and behind.free and not weights.is_diagonal(old.conv.weight.detach()):
            pointwise = modules[str(behind.path)]
            assert isinstance(pointwise, nn.Conv2d)
            return Replacement(new, compensated={str(behind.path): weights.mixed_behind(old, new, pointwise)})
        folding = weights.compensate(layer, owed, c, modules)
        ideal = layer.ideal and weights.ideal_depthwise(layer.ideal.weight, layer.ideal.bias, folding)
        return Replacement(new, compensated=folding.neighbours, stands_for=ideal, note=folding.note)
