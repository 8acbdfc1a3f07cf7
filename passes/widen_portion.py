"""Let partial convolutions convolve a larger portion where that costs little.

More parameters where they are nearly free: in the middle stages, and in the stages whose share of the FLOPs is small
(MOFA, sections 3.3 and 3.4).
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
from mofa_compiler.rewriting import FROZEN, Fate, Match, Pass, Portion, Replacement, Skip, as_tuple, convolved_channels

from ._stage_selection import check_places, pconv_inside

WIDER = (Fraction(3, 4),)
"""Portions that are tried, too, where a bound on the loss decides"""


@dataclass(frozen=True, config=FROZEN)
class WidenPortion(Pass):
    """Widen `PConv2d` to a larger portion. Exact: the new channels start as identity.

    Options:
        where: `middle` (the stages one level above the bottleneck), `cheap` (see below), stage names such as
            `encoder 3`, or globs over layer paths such as `enc3.*`; one or several.
        portion: the new share of convolved channels.
        cheap_below: a stage is cheap below this share of the median encoder stage, by the paper's estimate of MACs.
    """

    name: ClassVar[str] = "widen-portion"
    after: ClassVar[tuple[str, ...]] = ("sepconv-to-pconv",)

    where: Annotated[tuple[str, ...] | str, BeforeValidator(as_tuple), Field(min_length=1)] = ("middle", "cheap")
    portion: Portion = Fraction(1, 2)
    cheap_below: Annotated[float, Field(gt=0)] = CHEAP_BELOW

    def prepare(self, network: Network) -> None:
        check_places(self.name, as_tuple(self.where), network)

    def alternatives(self, layer: Layer, network: Network, *, bounded: bool = False) -> Sequence[Pass]:
        one = replace(self, where=("*",))  # measured time decides where, not the stage
        dense = bounded and layer.ideal is None  # in the place of a depthwise one so many channels never pay
        wider = [portion for portion in WIDER if dense and portion > one.portion]
        return (one, *(replace(one, portion=portion) for portion in wider))

    def match(self, layer: Layer, network: Network) -> Match | Skip | None:
        old = pconv_inside(layer, network, as_tuple(self.where), self.cheap_below)
        if not isinstance(old, PConv2d):
            return old
        c, note = convolved_channels(old.channels, self.portion)
        if old.convolved >= c:
            return Skip("done", f"already convolves {old.convolved} of {old.channels} channels")
        return Match(note)

    def build(self, layer: Layer, modules: Mapping[str, nn.Module]) -> Replacement:
        old = modules[layer.path]
        assert isinstance(old, PConv2d)
        c, _ = convolved_channels(old.channels, self.portion)
        new = weights.like(old, PConv2d, c)
        weights.widen(old, new)
        return Replacement(new, fate=Fate.EXACT, exact=True, stands_for=layer.ideal)
