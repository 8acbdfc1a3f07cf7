"""Make wide partial convolutions depthwise.

Above a width, mixing the convolved channels with one another dominates a partial convolution's cost, and the pointwise
convolution behind it mixes them anyway (MOFA, section 3.6).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import nn

from mofa_compiler import weights
from mofa_compiler.analysis.layers import Layer
from mofa_compiler.analysis.network import Network
from mofa_compiler.nn.partial_conv import PConv2d, PDWConv2d
from mofa_compiler.rewriting import FROZEN, Fate, Match, Pass, Phase, Replacement, Skip, unknown_subclass


@dataclass(frozen=True, config=FROZEN)
class PConvToPDWConv(Pass):
    """Replace `PConv2d` by `PDWConv2d` where it convolves at least `threshold` channels (d·p >= threshold).

    Channels that were separable in the original network get their own kernels back. Exact where the partial
    convolution mixed no channels and had these kernels already.

    Options:
        threshold: channels, inclusive; 0 makes every partial convolution depthwise.
    """

    name: ClassVar[str] = "pconv-to-pdwconv"
    after: ClassVar[tuple[str, ...]] = (
        "sepconv-to-pconv",
        "widen-portion",
        "narrow-portion",
        "restore-kernels",
        "decouple-upsampling",
        "decouple-downsampling",
    )
    phase: ClassVar[Phase] = Phase.REDUCE

    threshold: Annotated[int, Field(ge=0)] = 32

    def alternatives(self, layer: Layer, network: Network, *, bounded: bool = False) -> Sequence[Pass]:
        return (replace(self, threshold=0),)

    def match(self, layer: Layer, network: Network) -> Match | Skip | None:
        if not isinstance(layer.module, PConv2d):
            return None
        if unknown := unknown_subclass(layer.module, PConv2d):
            return unknown
        if layer.module.convolved < self.threshold:
            reason = f"convolves {layer.module.convolved} channels, below threshold={self.threshold}"
            return Skip("threshold", reason)
        return Match()

    def build(self, layer: Layer, modules: Mapping[str, nn.Module]) -> Replacement:
        old = modules[layer.path]
        assert isinstance(old, PConv2d)
        new = weights.like(old, PDWConv2d)
        if layer.ideal is not None:
            restored = weights.restore_kernels(old, new, layer.ideal)
            exact = restored == 0
            note = "" if exact else f"{restored} channels got their original kernels back"
            return Replacement(new, fate=Fate.EXACT if exact else Fate.INHERITED, exact=exact, note=note)
        behind = layer.follower
        path = str(behind.path) if behind and behind.is_pointwise and behind.free else None
        pointwise = modules[path] if path else None
        assert pointwise is None or isinstance(pointwise, nn.Conv2d)
        adjusted = weights.depthwise_from_partial(old, new, pointwise)
        exact = weights.is_diagonal(old.conv.weight.detach())
        compensated = {path: adjusted} if path and adjusted else {}
        note = "" if exact or compensated else "what it mixed between channels is lost: no pointwise layer behind it"
        return Replacement(
            new, fate=Fate.EXACT if exact else Fate.INHERITED, exact=exact, compensated=compensated, note=note
        )
