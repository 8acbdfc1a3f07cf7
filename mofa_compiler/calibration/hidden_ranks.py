"""Choosing which hidden channels stay where a pass took some away: those that it costs most to do without."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import fx

from ..analysis.channels import Positions
from ..analysis.hidden import Hidden, hidden_channels
from ..analysis.network import Network
from ..base.torch_state import own_randomness
from ..graph.call_spec import CallSpec
from ..graph.interpreter import Interpreter
from ..rewriting.layer_surgery import origin, selection
from ..weights import ChannelMoments, dearest
from .lockstep import bound_arguments

STRENGTH = 1e-4
"""Of a channel's mean energy: what varies less on these inputs may vary more on others"""


def kept_channels(
    original: Network, rewritten: Network, batches: Iterable[CallSpec]
) -> Mapping[str, tuple[int, Positions]]:
    """By the path of the layer that makes them: the number of an orbit, and the places in it of what is to stay.

    As many as the passes left, by the moments of what the original's layers read on these inputs.
    """
    left = {str(origin(node)): found for node in rewritten.program.graph.nodes if (found := selection(node))}
    counts: dict[str, tuple[Hidden, int]] = {}
    for path, hidden in hidden_channels(original).items():
        for node, classes in hidden.values.items() if isinstance(hidden, Hidden) else ():
            if node.name in left:
                assert isinstance(hidden, Hidden)
                counts[path] = hidden, len(np.unique(classes[list(left[node.name].kept)]))
    moments = _moments(original, [hidden for hidden, _ in counts.values()], batches)
    modules = original.program.modules
    return {
        path: (hidden.number, np.array(dearest(hidden, modules, moments, count, STRENGTH)))
        for path, (hidden, count) in counts.items()
    }


def _moments(
    original: Network, places: Iterable[Hidden], batches: Iterable[CallSpec]
) -> Mapping[fx.Node, ChannelMoments]:
    """Of what is read of hidden channels, before it is pooled."""
    seen = {reading.seen: hidden.last for hidden in places for reading in hidden.measured}
    found: dict[fx.Node, ChannelMoments] = {}

    class Watching(Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if n in seen:
                one = ChannelMoments.of(value, last=seen[n])
                found[n] = found[n] + one if n in found else one
            return value

    watching = Watching(original.program.graph_module, graph=original.program.graph)
    for call in batches if seen else ():
        with torch.no_grad(), own_randomness():
            watching.run(*bound_arguments(original.program.graph_module, call))
    return found
