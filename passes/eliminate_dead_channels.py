"""Take dead channels away.

Training leaves channels behind that are the same number everywhere, whatever the image: activations that are never
reached, scales that went to zero. They cost what all others do.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, fx, nn

from mofa_compiler import weights
from mofa_compiler.analysis.hidden import Held, Hidden, hidden_channels
from mofa_compiler.analysis.layers import kind_of
from mofa_compiler.analysis.network import Network
from mofa_compiler.analysis.nodes import function_name, is_plain
from mofa_compiler.rewriting import (
    FROZEN,
    GraphPass,
    Pass,
    Phase,
    Program,
    Rewiring,
    RoadmapError,
    Skip,
    Watch,
    origin,
    selection,
)

from ._channel_removal import remove
from ._constant_values import Cuts, cut, described, find_cuts, place

_FLAT: Mapping[str, tuple[tuple[float, int, float], ...]] = {
    "relu": ((0, -1, 0),),
    "relu6": ((0, -1, 0), (6, 1, 6)),
    "hardswish": ((-3, -1, 0),),
    "hardsigmoid": ((-3, -1, 0), (3, 1, 1)),
}
"""Where activations are flat: an edge, the side of it, and the value there"""
_MODULES = {nn.ReLU: "relu", nn.ReLU6: "relu6", nn.Hardswish: "hardswish", nn.Hardsigmoid: "hardsigmoid"}
_SEEN = re.compile(r"\s*(\S+)\s*:\s*(\d+(?:-\d+)?(?:\s*,\s*\d+(?:-\d+)?)*)\s*(?:=\s*(-?\d+(?:\.\d+)?)\s*)?")


@dataclass(frozen=True, config=FROZEN)
class EliminateDeadChannels(GraphPass):
    """Take away channels, layers and branches that are constant, and fold the constants into what follows.

    Without calibration inputs what goes is what the weights prove to be constant: zero weights and scales, and what
    follows from them. With these it is also what activations (ReLU, ReLU6, Hardswish, Hardsigmoid) never let through,
    by a margin, on any input, and on any at a quarter, half and twice its exposure and with noise of 5 and 20 % of its
    deviation. That is what was seen, and no proof: an input unlike all of them may wake such a channel.

    Options:
        margin: how far a dead channel stays from what its activation lets through, in standard deviations of its layer.
        seen: what calibration saw, such as `encdec_relu: 0-63`: a value of the graph, and its dead channels.
    """

    name: ClassVar[str] = "eliminate-dead-channels"
    phase: ClassVar[Phase] = Phase.PREPARE
    offered_under_bound: ClassVar[bool] = True
    per_layer: ClassVar[bool] = False
    keeps_output: ClassVar[bool] = True

    margin: Annotated[float, Field(ge=0)] = 0.02
    seen: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._entries  # noqa: B018 - refuses a malformed one

    @classmethod
    def example(cls) -> tuple[Pass, nn.Module, Tensor]:
        dead = nn.Conv2d(8, 8, 1)
        with torch.no_grad():
            dead.weight[4:] = 0
            dead.get_parameter("bias")[4:] = -1
        layers = nn.Conv2d(3, 8, 1), dead, nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 3, 1)
        return cls(), nn.Sequential(*layers), torch.rand(1, 3, 16, 16)

    @cached_property
    def _entries(self) -> tuple[tuple[str, list[int], float], ...]:
        """The values' names, their channels, and what they are."""
        found = []
        for text in self.seen:
            match = _SEEN.fullmatch(text)
            if match is None:
                raise RoadmapError(
                    f"{self.name}: seen: {text!r} is no value with channels, such as 'encdec_relu: 0-63'",
                    code="bad-value",
                )
            found.append((match[1], _numbers(match[2]), float(match[3] or 0)))
        return tuple(found)

    def prepare(self, network: Network) -> None:
        widths = {origin(node): _width(node) for node in network.program.graph.nodes}
        for name, channels, _ in self._entries:
            if name not in widths:
                raise RoadmapError(f"{self.name}: seen: the network has no value {name!r}", code="unknown-name")
            if max(channels) >= widths[name]:
                raise RoadmapError(f"{self.name}: seen: {name} has no channel {max(channels)}", code="bad-value")

    def informed(self, network: Network, watch: Watch) -> Pass:
        if self.seen:
            return self
        flats = {node.name: flat for node in network.program.graph.nodes if (flat := _flat(node, network.program))}
        margins: dict[tuple[str, float], Tensor] = {}

        def told(name: str, reads: Sequence[Any]) -> None:
            x = reads[0]
            if x.dim() != 4:
                return
            spread = x.double().std().clamp_min(torch.finfo(torch.float32).tiny)
            for edge, side, value in flats[name]:
                nearest = x.amin((0, 2, 3)) if side > 0 else x.amax((0, 2, 3))
                missed = side * (nearest.double() - edge) / spread
                known = margins.get((name, value))
                margins[name, value] = missed if known is None else torch.minimum(known, missed)

        watch(flats, told)
        seen = [_written(name, missed > self.margin, value) for (name, value), missed in margins.items()]
        return replace(self, seen=tuple(filter(None, seen)))

    def rewire(self, wiring: Rewiring) -> None:
        network = wiring.network
        if network.program.device.type == "meta":
            return
        ends = network.anatomy.input_paths | network.anatomy.output_paths
        before = self._cuts(wiring, network.program.graph, ends)
        for path, found in hidden_channels(network).items():
            if not self.looks_at(path):
                continue
            why = (
                self._narrow(wiring, found, before)
                if isinstance(found, Hidden)
                else _held(network, path, found, before)
            )
            if why is not None:
                wiring.refuse(path, wiring.describe(path), why)
        for edit in wiring.edits:
            wiring.refusals.pop(edit.path, None)  # what it makes stays, but it reads less
        cuts = self._cuts(wiring, wiring.graph, ends)
        for node, why in cuts.refused.items():
            wiring.refuse(place(node), described(wiring, node), why)
        cut(wiring, cuts, self._because)

    @property
    def _because(self) -> str:
        return "seen on every calibration input, not proven" if self.seen else "by its weights"

    def _cuts(self, wiring: Rewiring, graph: fx.Graph, ends: Collection[str]) -> Cuts:
        seen = self._facts(graph, wiring.network.program)
        return find_cuts(
            wiring, graph, weights.constants(graph, wiring.modules, wiring.exactly, seen), ends, self.looks_at
        )

    def _facts(self, graph: fx.Graph, program: Program) -> weights.Facts:
        """What calibration saw, for the channels that values have by now."""
        widths = {origin(node): _width(node) for node in program.graph.nodes}
        known: dict[str, Tensor] = {}
        for name, channels, value in self._entries:
            fact = known.setdefault(name, torch.full((widths[name],), torch.nan, dtype=torch.float64))
            fact[channels] = value
        facts: dict[fx.Node, Tensor] = {}
        for node in graph.nodes:
            stands_for = origin(node) or ""
            if stands_for in known and _flat(node, program):
                fact, left = known[stands_for], selection(node)
                facts[node] = fact if left is None else fact[list(left.kept)]
        return facts

    def _narrow(self, wiring: Rewiring, hidden: Hidden, cuts: Cuts) -> Skip | None:
        """Take away hidden channels that no layer needs; or why those that are constant stay, where there are any."""
        if hidden.last or not all(reading.value in cuts.alive for reading in hidden.readings):
            return None
        facts = {one: _fact(one.value, cuts.facts) for one in hidden.readings}
        free = np.ones(len(hidden.orbit), dtype=bool)
        for reading, fact in facts.items():
            unneeded = _unneeded(wiring.exactly(reading.path), fact)
            free &= unneeded[hidden.blocks(reading.value)].all(1)
        kept = np.flatnonzero(~free).tolist() or [0]
        if len(kept) == len(free):
            dead = max(int((~fact.isnan()).sum()) for fact in facts.values())
            told = f"{dead} channels are constant, but zeros come in at the border, or no bias takes them up"
            return Skip("padding", told) if dead else None
        moments = {}
        for reading, fact in facts.items():
            gone = np.setdiff1d(np.arange(len(fact)), hidden.blocks(reading.value)[kept])
            mean = torch.zeros_like(fact)
            mean[gone] = torch.where(fact.isnan(), 0, fact)[gone]
            mean = mean.to(wiring.network.program.device)
            moments[reading.seen] = weights.ChannelMoments(torch.outer(mean, mean), mean, 1)
        note = f"{len(free) - len(kept)} of {len(free)} channels are constant or not read, {self._because}"
        remove(wiring, hidden, kept, moments, weights.EXACTLY, note)
        return None


def _unneeded(layer: nn.Module, fact: Tensor) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which channels a layer can do without: constants that its bias takes up, and what its weights leave out."""
    assert isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d))
    held = layer.weight.detach().cpu()
    read = (held if isinstance(layer, nn.ConvTranspose2d) else held.transpose(0, 1)).flatten(1).any(1)
    shifts = weights.passes_shift(layer) and layer.bias is not None
    taken = ~fact.isnan() if shifts else fact == 0
    return (taken | ~read).numpy()


def _held(network: Network, path: str, held: Held, cuts: Cuts) -> Skip | None:
    """Why channels that are constant behind a layer stay; None where there are none."""
    modules, dead = network.program.modules, 0
    pending = [node for node in network.program.graph.nodes if node.op == "call_module" and node.target == path]
    while pending:
        node = pending.pop()
        dead = max(dead, int((~_fact(node, cuts.facts).isnan()).sum()) if node in cuts.alive else 0)
        pending += [user for user in node.users if kind_of(user, modules) in ("activation", "norm", "identity")]
    return Skip(held.code, f"{dead} channels are constant, but {held.reason}") if dead else None


def _fact(node: fx.Node, facts: weights.Facts) -> Tensor:
    return facts.get(node, torch.full((_width(node),), torch.nan, dtype=torch.float64))


def _width(node: fx.Node) -> int:
    """How many channels an image has; 0 for anything else."""
    value = node.meta.get("val")
    return int(value.shape[1]) if isinstance(value, Tensor) and value.dim() == 4 else 0


def _flat(node: fx.Node, program: Program) -> tuple[tuple[float, int, float], ...]:
    """Where the activation that a node is has the same value; nothing where it is none of those."""
    if node.op == "call_module":
        module = program.modules.get(str(node.target))
        return _FLAT[_MODULES[type(module)]] if is_plain(module, *_MODULES) else ()
    return _FLAT.get(function_name(node), ()) if node.op in ("call_function", "call_method") else ()


def _numbers(text: str) -> list[int]:
    """The numbers of `0-2, 5`."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def _written(name: str, dead: Tensor, value: float) -> str:
    """Channels as text; empty where there are none."""
    runs: list[list[int]] = []
    for channel in dead.nonzero().flatten().tolist():
        if runs and channel == runs[-1][1] + 1:
            runs[-1][1] = channel
        else:
            runs.append([channel, channel])
    numbers = ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in runs)
    return f"{name}: {numbers}{f' = {value:g}' if value else ''}" if runs else ""
