"""Take hidden channels away.

Most of the work of a modern block is in the two pointwise convolutions around its hidden channels, whose number was
chosen before anything was trained. Those that cost least go, and what reads the others takes up what is gone.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, fx, nn

from mofa_compiler import weights
from mofa_compiler.analysis.hidden import Held, Hidden, hidden_channels
from mofa_compiler.analysis.layers import Layer
from mofa_compiler.analysis.network import Network
from mofa_compiler.rewriting import FROZEN, GraphPass, Match, Pass, Phase, Portion, Rewiring, Skip, origin, selection

from ._channel_removal import Moments, remove
from ._random_fields import random_moments

SHARES = (Fraction(1, 2), Fraction(5, 8), Fraction(3, 4), Fraction(7, 8))
"""What is tried where a bound on the loss decides; of those that leave as many channels, the first"""

MANY = 32
"""Channels of which a few multiples of what an engine computes at once are left"""


@dataclass(frozen=True, config=FROZEN)
class NarrowHidden(GraphPass):
    """Keep a share of the channels between a layer that widens and those that project, where removal costs least.

    Covers inverted residuals, gated and ConvNeXt-like blocks, multilayer perceptrons, and any two convolutions with
    norms, activations, depthwise convolutions, gates or channel attention in between. Residual streams and skip
    connections keep their width.

    Options:
        keep: the share of the channels that a projecting layer reads, or their number.
        multiple: their number is a multiple of this, as near as it can be; `auto`: of what engines compute at once, 8,
            where there are 32 or more, else of 4.
    """

    name: ClassVar[str] = "narrow-hidden"
    per_layer: ClassVar[bool] = True
    phase: ClassVar[Phase] = Phase.NARROW
    offered_under_bound: ClassVar[bool] = True

    keep: Annotated[int, Field(gt=1)] | Portion = Fraction(3, 4)
    multiple: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"

    @classmethod
    def example(cls) -> tuple[Pass, nn.Module, Tensor]:
        block = nn.Sequential(nn.Conv2d(8, 32, 1), nn.ReLU(), nn.Conv2d(32, 8, 1))
        return cls(), nn.Sequential(nn.Conv2d(3, 8, 1), block, nn.Conv2d(8, 3, 1)), torch.rand(1, 3, 16, 16)

    def alternatives(self, layer: Layer, network: Network, *, bounded: bool = False) -> Sequence[Pass]:
        found = hidden_channels(network).get(layer.path)
        if not bounded or not isinstance(found, Hidden):
            return (self,)
        offered: dict[int | Skip, Pass] = {}
        for one in (self, *(replace(self, keep=share) for share in SHARES)):
            offered.setdefault(one._what(found), one)
        return tuple(offered.values())

    def reach(self, layer: Layer, network: Network) -> Collection[str]:
        found = hidden_channels(network).get(layer.path)
        return {axis.path for axis in found.axes} if isinstance(found, Hidden) else ()

    def match(self, layer: Layer, network: Network) -> Match | Skip | None:
        found = hidden_channels(network).get(layer.path)
        if found is None:
            return None
        left = self._what(found)
        return left if isinstance(left, Skip) else Match()

    def rewire(self, wiring: Rewiring) -> None:
        for path, found in hidden_channels(wiring.network).items():
            if not self.looks_at(path):
                continue
            left = self._what(found)
            if isinstance(left, Skip):
                wiring.refuse(path, wiring.describe(path), left)
                continue
            assert isinstance(found, Hidden)
            moments, ranked = _moments(wiring, found)
            kept: Sequence[int] = found.first(left).tolist()
            if moments and not ranked:
                layers = {one.path: wiring.exactly(one.path) for one in found.measured}
                kept = weights.dearest(found, layers, moments, left)
            strength = weights.MEASURED if ranked else weights.EXACTLY
            remove(wiring, found, kept, moments, strength, f"{left} of {len(found.orbit)} hidden channels are left")
        for edit in wiring.edits:
            wiring.refusals.pop(edit.path, None)  # what it makes stays, but it reads less

    def _what(self, found: Hidden | Held) -> int | Skip:
        """How many classes of channels are left; or why all are."""
        if isinstance(found, Held):
            return Skip(found.code, found.reason)
        reading = found.measured[0]
        now, width = len(found.values[reading.value]), found.width(reading)
        before = selection(reading.value)
        was = before.width if before else now
        wanted = self.keep if isinstance(self.keep, int) else self.keep * was
        if now <= wanted:
            return Skip("done", f"{now} hidden channels are no more than wanted")
        multiple = (8 if was >= MANY else 4) if self.multiple == "auto" else self.multiple
        fitting = [n for n in range(1, len(found.orbit) + 1) if n * width % multiple == 0]
        left = min(fitting, key=lambda n: (abs(n * width - wanted), -n), default=len(found.orbit))
        if left == len(found.orbit):
            return Skip("threshold", f"of {now} hidden channels no share near {wanted} is a multiple of {multiple}")
        return left


def _moments(wiring: Rewiring, hidden: Hidden) -> tuple[Moments, bool]:
    """Of what is read of hidden channels, and whether calibration saw it and put these in order."""
    program = wiring.network.program
    seen = {one.seen: program.ranked.get(origin(one.seen) or "") for one in hidden.readings}
    known = {node: _left(node, found) for node, found in seen.items() if isinstance(found, weights.ChannelMoments)}
    if len(known) == len(seen):
        return known, True
    if any(parameter.is_meta for parameter in program.modules[hidden.path].parameters()):
        return {}, False
    return random_moments(wiring, hidden), False


def _left(node: fx.Node, moments: weights.ChannelMoments) -> weights.ChannelMoments:
    """Of the channels that earlier passes left."""
    found = selection(node)
    return moments if found is None else moments.at(torch.tensor(found.kept))
