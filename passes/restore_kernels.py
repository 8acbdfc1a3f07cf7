"""Give widened channels the kernels that they had in the original network.

A widened partial convolution starts as identity on its new channels, so that widening is exact. Where the original was
a separable convolution, its own kernels are known and come closer to what that network did.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic.dataclasses import dataclass
from torch import nn

from mofa_compiler import weights
from mofa_compiler.analysis.layers import Layer
from mofa_compiler.analysis.network import Network
from mofa_compiler.nn.partial_conv import PConv2d
from mofa_compiler.rewriting import FROZEN, Match, Pass, Replacement, Skip, unknown_subclass


@dataclass(frozen=True, config=FROZEN)
class RestoreKernels(Pass):
    """Fill the channels of a `PConv2d` that are passed through, though convolved, with their original kernels.

    Changes no shape, no parameter count and no MACs; it brings the output closer to the original network's.
    """

    name: ClassVar[str] = "restore-kernels"
    after: ClassVar[tuple[str, ...]] = ("sepconv-to-pconv", "widen-portion")

    def match(self, layer: Layer, network: Network) -> Match | Skip | None:
        if not isinstance(layer.module, PConv2d):
            return None
        if unknown := unknown_subclass(layer.module, PConv2d):
            return unknown
        if layer.ideal is None:
            return Skip("no-counterpart", "does not stand for a depthwise convolution of the original network")
        _, restored = weights.restored_kernels(layer.module, layer.ideal)
        if restored == 0:
            return Skip("done", "has its original kernels")
        return Match(f"{restored} channels got their original kernels back")

    def build(self, layer: Layer, modules: Mapping[str, nn.Module]) -> Replacement:
        old = modules[layer.path]
        assert isinstance(old, PConv2d)
        assert layer.ideal is not None
        new = weights.like(old, PConv2d)
        weights.restore_kernels(old, new, layer.ideal)
        return Replacement(new, stands_for=layer.ideal)
