"""Let partial convolutions convolve a larger portion where that costs little.

More parameters where they are nearly free: in the middle stages, and in the stages whose share of the FLOPs is small
(MOFA, sections 3.3 and 3.4).
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass
from torch import nn

from mofa_compiler import inherit
from mofa_compiler.errors import RoadmapError, nearest
from mofa_compiler.layers import PConv2d
from mofa_compiler.network import CHEAP_BELOW, Network
from mofa_compiler.options import FROZEN, Portion, as_tuple, convolved_channels
from mofa_compiler.rewriting import Match, Pass, Replacement, Skip
from mofa_compiler.survey import Layer


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
        stages = {stage.name for stage in network.anatomy.stages}
        for entry in as_tuple(self.where):
            is_path = any(fnmatchcase(path, entry) for path in network.layers)
            if entry not in stages | {"middle", "cheap"} and not is_path:
                raise RoadmapError(
                    f"widen-portion: where={entry!r} is neither middle, cheap, a stage nor a path of a convolution"
                    + nearest(entry, {"middle", "cheap"} | stages)
                )

    def match(self, layer: Layer, network: Network) -> Match | Skip | None:
        old = layer.module
        if not isinstance(old, PConv2d):
            return None
        if type(old) is not PConv2d:
            return Skip(f"is a {type(old).__name__}, a subclass of PConv2d whose behaviour is not known")
        chosen = self._chosen(layer, network)
        if chosen is not None:
            return chosen
        c, note = convolved_channels(old.channels, self.portion)
        if old.convolved >= c:
            return Skip(f"already convolves {old.convolved} of {old.channels} channels")
        return Match(note)

    def _chosen(self, layer: Layer, network: Network) -> Skip | None:
        """None for a layer that `where` names, else why it does not."""
        if any(fnmatchcase(layer.path, entry) for entry in as_tuple(self.where)):
            return None
        stage = layer.stage
        no_unet = "" if network.anatomy.is_unet else f"the network is no U-Net ({network.anatomy.reason})"
        if stage is None:
            return Skip(no_unet or "belongs to no stage")
        reasons = []
        for entry in as_tuple(self.where):
            if no_unet and entry in ("middle", "cheap"):
                chosen, reason = False, no_unet
            elif entry == "middle":
                middle = network.anatomy.middle()
                chosen, names = stage in middle, " and ".join(s.name for s in middle)
                reason = f"{stage.name} is not in the middle" + (f" ({names})" if names else "")
            elif entry == "cheap":
                chosen, reason = network.is_cheap(stage, self.cheap_below)
            else:
                chosen, reason = stage.name == entry, f"is in {stage.name}"
            if chosen:
                return Skip(f"is in the transition into {stage.name}") if layer.in_transition else None
            reasons.append(reason)
        return Skip("; ".join(dict.fromkeys(reasons)))

    def build(self, layer: Layer, modules: Mapping[str, nn.Module]) -> Replacement:
        old = modules[layer.path]
        assert isinstance(old, PConv2d)
        c, _ = convolved_channels(old.channels, self.portion)
        new = inherit.like(old, PConv2d, c)
        inherit.widen(old, new)
        return Replacement(new, fate="exact", exact=True, stands_for=layer.ideal)
