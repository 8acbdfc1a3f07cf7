"""Hidden channels taken out of a graph: every layer and parameter along them gets shorter, and what reads them takes up
what is gone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from mofa_compiler import weights
from mofa_compiler.analysis.hidden import Hidden, Reading, counts_channels
from mofa_compiler.analysis.nodes import function_name
from mofa_compiler.rewriting import Fate, Rewiring

Moments = Mapping[fx.Node, weights.ChannelMoments]
"""Of what layers read before it is pooled, by its node in the network before the pass"""


def remove(
    wiring: Rewiring, hidden: Hidden, kept: Sequence[int], moments: Moments, strength: float, note: str = ""
) -> None:
    """Leave only the classes at these places of the orbit.

    Without moments of what a layer reads, its weights for the channels that stay are kept as they are. `strength` is as
    for `weights.take_up`.
    """
    classes = hidden.orbit[list(kept)]
    places = {node: np.flatnonzero(np.isin(mine, classes)) for node, mine in hidden.values.items()}
    cuts: dict[str, list[tuple[weights.Cut, bool]]] = defaultdict(list)
    for axis, mine in hidden.axes.items():
        left = torch.from_numpy(np.flatnonzero(np.isin(mine, classes)))
        cuts[axis.path].append(((axis.names, axis.dim, left), axis.reads))
    readings: dict[str, list[Reading]] = defaultdict(list)
    for reading in hidden.readings:
        readings[reading.path].append(reading)
    calls = {str(node.target): node for node in hidden.nodes if node.op == "call_module"}
    readers = {user for node in hidden.values for user in node.users if str(user.target) in readings}
    nodes = dict.fromkeys(wiring.node_of[node] for node in (*hidden.nodes, *readers))
    counted = [path for path in calls if counts_channels(wiring.modules[path])]
    paths = [path for path in dict.fromkeys((*calls, *cuts)) if path in counted or path in cuts.keys() & wiring.modules]
    before = {path: wiring.describe(path) for path in paths}
    tensors = {path: _sized(wiring, path) for path in cuts if path in wiring.tensors}
    new: dict[str, nn.Module] = {}
    for path in paths:
        module, output = wiring.exactly(path), places.get(calls[path]) if path in calls else None
        channels = _outputs(module) if output is None else len(output)
        shorter = weights.with_channels(module, [cut for cut, reads in cuts[path] if not reads], channels)
        mixed = [cut for cut, reads in cuts[path] if reads]
        new[path] = weights.with_channels(shorter, mixed, channels) if mixed else shorter
        if path in readings and all(reading.seen in moments for reading in readings[path]):
            seen = weights.at_all_calls(readings[path], moments)
            weights.take_up(shorter, new[path], seen, mixed[0][2], strength)  # type: ignore[arg-type]
    with ExitStack() as changes:
        for node in sorted(nodes, reverse=True):
            changes.enter_context(wiring.changing(node))  # left in execution order
        for node, places_left in places.items():
            twin = wiring.node_of[node]
            wiring.select(twin, places_left.tolist(), twin.meta["val"].dim() - 1 if hidden.last else 1)
        for node in hidden.nodes:
            _cut_alike(wiring.node_of[node], len(kept), len(hidden.orbit))
        for path, module in new.items():
            wiring.put(path, module)
        for path in tensors:
            old, ((_, dim, left), _) = wiring.tensors[path], cuts[path][0]
            short = old.detach().index_select(dim, left.to(old.device))
            wiring.put_tensor(path, nn.Parameter(short, old.requires_grad) if isinstance(old, nn.Parameter) else short)
    for path in paths:
        wiring.tell(path, before[path], wiring.describe(path), Fate.INHERITED, note=note if path == hidden.path else "")
    for path, was in tensors.items():
        wiring.tell(path.rpartition(".")[0] or path, was, _sized(wiring, path), Fate.INHERITED)


def _sized(wiring: Rewiring, path: str) -> str:
    """A parameter in one short line."""
    return f"{path}({'x'.join(map(str, wiring.tensors[path].shape))})"


def _outputs(module: nn.Module) -> int:
    found = getattr(module, "out_channels", None)
    return int(module.out_features if found is None else found)  # type: ignore[arg-type]


def _cut_alike(node: fx.Node, kept: int, count: int) -> None:
    """Let a node that cuts channels by numbers cut them in the same proportion; in each part there is every class."""

    def shorter(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return type(value)(shorter(one) for one in value)
        return value * kept // count if isinstance(value, int) else value

    name = function_name(node)
    if name in ("split", "split_with_sizes") or (name == "tensor_split" and not isinstance(node.args[1], int)):
        source, sizes, *rest = node.args
        node.args = (source, shorter(sizes), *rest)
    elif name == "getitem" and isinstance(node.args[1], tuple) and len(node.args[1]) > 1:
        source, (batch, channels, *rest) = node.args[0], node.args[1]
        assert isinstance(channels, slice)
        bounds = slice(shorter(channels.start), shorter(channels.stop), channels.step)
        node.args = (source, (batch, bounds, *rest))
