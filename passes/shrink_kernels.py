"""Make large kernels smaller.

A 5x5 kernel costs almost three times as much as a 3x3 one, and engines have their fastest code for the latter. The best
smaller kernel is a closed form; example images (calibration) make up for most of what it leaves out.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import nn

from mofa_compiler import weights
from mofa_compiler.analysis.layers import Layer
from mofa_compiler.analysis.network import Network
from mofa_compiler.rewriting import FROZEN, Match, Pass, Phase, Replacement, Skip, unknown_subclass


@dataclass(frozen=True, config=FROZEN)
class ShrinkKernels(Pass):
    """Replace convolutions by ones with a smaller, centred kernel; stride, dilation and groups stay.

    Options:
        size: of the new kernel, in either direction.
    """

    name: ClassVar[str] = "shrink-kernels"
    phase: ClassVar[Phase] = Phase.REDUCE
    offered: ClassVar[bool] = True

    size: Annotated[int, Field(ge=1)] = 3

    def match(self, layer: Layer, network: Network) -> Match | Skip | None:
        conv = layer.module
        if not isinstance(conv, nn.Conv2d) or max(conv.kernel_size) <= self.size:
            return None
        if unknown := unknown_subclass(conv, nn.Conv2d):
            return unknown
        if any((k - self._new_size(k)) % 2 for k in conv.kernel_size):
            return Skip("kernel", f"its kernel {conv.kernel_size} has no centred part of size {self.size}")
        if isinstance(conv.padding, str):
            return None if conv.padding == "valid" else Match()
        if any(padding < 0 for padding in self._padding(conv)):
            return Skip("padding", f"its padding {conv.padding} is narrower than what its kernel loses")
        return Match()

    def build(self, layer: Layer, modules: Mapping[str, nn.Module]) -> Replacement:
        old = modules[layer.path]
        assert isinstance(old, nn.Conv2d)
        new = nn.Conv2d(
            old.in_channels,
            old.out_channels,
            (self._new_size(old.kernel_size[0]), self._new_size(old.kernel_size[1])),
            (old.stride[0], old.stride[1]),
            old.padding if isinstance(old.padding, str) else self._padding(old),
            (old.dilation[0], old.dilation[1]),
            old.groups,
            old.bias is not None,
            old.padding_mode,
            device=old.weight.device,
            dtype=old.weight.dtype,
        )
        weights.fill(new.weight, weights.shrunk(old, new))
        new.bias = copy.deepcopy(old.bias)
        return Replacement(new)

    def _new_size(self, size: int) -> int:
        return min(size, self.size)

    def _padding(self, conv: nn.Conv2d) -> tuple[int, int]:
        assert not isinstance(conv.padding, str)
        height, width = (
            p - d * (k - self._new_size(k)) // 2
            for p, d, k in zip(conv.padding, conv.dilation, conv.kernel_size, strict=True)
        )
        return height, width
