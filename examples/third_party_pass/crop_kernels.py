"""A pass in a package of its own: crop large depthwise kernels to 3x3.

Installing this package is all it takes: `mofa passes` then lists `crop-kernels`, and roadmaps can name it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from mofa_compiler.network import Network
from mofa_compiler.rewriting import Match, Pass, Phase, Replacement, Skip
from mofa_compiler.survey import Layer


@dataclass(frozen=True)
class CropKernels(Pass):
    """Crop the kernels of stride-1 depthwise convolutions to 3x3, where little is lost.

    Options:
        keep: share of a layer's kernel energy that the centre has to hold; below it the layer is left alone.
    """

    name: ClassVar[str] = "crop-kernels"
    phase: ClassVar[Phase] = Phase.REDUCE  # of whatever depthwise layer other passes made
    offered: ClassVar[bool] = True  # tried wherever a roadmap has a target, and kept where that makes it faster

    keep: Annotated[float, Field(ge=0, le=1)] = 0.5

    @classmethod
    def example(cls) -> tuple[Pass, nn.Module, Tensor]:
        kernel = nn.Conv2d(8, 8, 5, padding=2, groups=8)
        model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), kernel, nn.Conv2d(8, 3, 3, padding=1))
        return cls(keep=0), model, torch.rand(1, 3, 16, 16)

    def alternatives(self, layer: Layer, network: Network, *, bounded: bool = False) -> Sequence[Pass]:
        return (self, replace(self, keep=0.0)) if bounded else (self,)  # much may be lost only under a bound

    def match(self, layer: Layer, network: Network) -> Match | Skip | None:
        conv = layer.module
        if not layer.is_depthwise or layer.stride != (1, 1) or conv.kernel_size != (5, 5):
            return None
        energy = conv.weight.detach().square()
        share = float(energy[..., 1:4, 1:4].sum() / energy.sum())
        if share < self.keep:
            return Skip("energy", f"its centre holds {share:.0%} of the energy, below {self.keep:.0%}")
        return Match()

    def build(self, layer: Layer, modules: Mapping[str, nn.Module]) -> Replacement:
        old = modules[layer.path]
        assert isinstance(old, nn.Conv2d)
        channels, has_bias = old.in_channels, old.bias is not None
        new = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=has_bias).to(old.weight)
        new.load_state_dict({**old.state_dict(), "weight": old.weight.detach()[..., 1:4, 1:4]})
        return Replacement(new)
