"""Passes over places in the graph that are no single convolution: norms, gates, activations, chains of linear steps.

Such a pass finds its places itself, in a copy of the graph, and changes them by a `Rewiring`, which counts parameters
and MACs, checks in float64 what is to compute the same, checks the shapes of all else, and writes the diff.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, fx, nn

from ..analysis.layers import Layer
from ..analysis.network import Network
from ..base.errors import RewriteError
from .graph_rewriter import Rewiring
from .pass_api import Lowering, Match, Pass, Replacement, Skip


class GraphPass(Pass):
    """A pass whose places are no single convolution. `layers` are globs over the paths that it anchors on.

    What it promises is another question: an edit is exact where `Rewiring.check` has found its error, and a pass of
    which all are exact is a `GraphLowering`.
    """

    per_layer: ClassVar[bool] = False

    @abstractmethod
    def rewire(self, wiring: Rewiring) -> None:
        """Find the places of this pass's kind and change them, or refuse them with a reason."""

    def match(self, layer: Layer, network: Network) -> Match | Skip | None:
        """Nothing: no layer by itself is a place of such a pass."""
        return None

    def build(self, layer: Layer, modules: Mapping[str, nn.Module]) -> Replacement:
        raise RewriteError(f"{self.name}: builds no single layer, and {layer.path} was asked for", code="bug")


class GraphLowering(GraphPass, Lowering):
    """An exact `GraphPass`, carried out after calibration."""


def is_image(value: Any) -> bool:
    """Whether an argument is a value of shape (N, C, H, W)."""
    tensor = value.meta.get("val") if isinstance(value, fx.Node) else None
    return isinstance(tensor, Tensor) and tensor.dim() == 4 and tensor.is_floating_point()
