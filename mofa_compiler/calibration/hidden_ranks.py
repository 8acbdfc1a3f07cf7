"""Choosing which hidden channels stay where a pass took some away: those that it costs most to do without."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx

from ..analysis.channel_order import Orders, sources
from ..analysis.channels import Channels, Positions
from ..analysis.hidden import Hidden, hidden_channels
from ..analysis.network import Network
from ..base.torch_state import own_randomness
from ..graph.call_spec import CallSpec
from ..graph.interpreter import Interpreter
from ..rewriting.layer_surgery import origin, selection
from ..weights import MEASURED, ChannelMoments, dearest
from .lockstep import bound_arguments


@dataclass(frozen=True)
class Ranks:
    """Which hidden channels are to stay.

    Attributes:
        kept: by the number of an orbit, the places in it that come first, and those of what is to come there.
        moments: of what the original's layers read of them, before it is pooled.
    """

    kept: Mapping[int, tuple[Positions, Positions]]
    moments: Mapping[fx.Node, ChannelMoments]

    def seen(self, channels: Channels, orders: Orders) -> Mapping[str, ChannelMoments]:
        """The moments with channels in another order, by the names of the nodes."""
        places = {node: torch.from_numpy(sources(channels, orders, node)) for node in self.moments}
        return {node.name: found.at(places[node]) for node, found in self.moments.items()}


def ranks(
    original: Network,
    rewritten: Network,
    batches: Iterable[CallSpec],
    known: Mapping[fx.Node, ChannelMoments] | None = None,
) -> Ranks:
    """As many as the passes left, chosen by what the original's layers read on these inputs; `known`: its moments."""
    left = {str(origin(node)): found for node in rewritten.program.graph.nodes if (found := selection(node))}
    counts: dict[str, tuple[Hidden, int]] = {}
    for path, hidden in hidden_channels(original).items():
        if not isinstance(hidden, Hidden):
            continue
        for node, classes in hidden.values.items():
            if node.name in left:
                counts[path] = hidden, len(np.unique(classes[list(left[node.name].kept)]))
    places = [hidden for hidden, _ in counts.values()]
    moments = moments_of(original, places, batches) if known is None else _some(known, places)
    kept = {}
    for hidden, count in counts.values():
        stays = dearest(hidden, original.program.modules, moments, count, MEASURED)
        kept[hidden.number] = hidden.first(count), np.array(stays)
    return Ranks(kept, moments)


def _some(known: Mapping[fx.Node, ChannelMoments], places: Iterable[Hidden]) -> Mapping[fx.Node, ChannelMoments]:
    read = {reading.seen for hidden in places for reading in hidden.readings}
    return {node: found for node, found in known.items() if node in read}


def moments_of(
    original: Network, places: Iterable[Hidden], batches: Iterable[CallSpec]
) -> Mapping[fx.Node, ChannelMoments]:
    """Of what is read of hidden channels, before it is pooled."""
    seen = {reading.seen: hidden.last for hidden in places for reading in hidden.readings}
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
