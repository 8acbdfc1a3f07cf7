"""Which exact passes make a network faster where it will run, judged together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from torch import Tensor

from ..analysis.network import Network
from ..rewriting.engine import rewrite
from ..rewriting.pass_api import Pass
from .benchmark import Trials
from .candidates import ORIGINAL

Tell = Callable[[str, int, int], None]


def faster_lowerings(
    network: Network,
    offered: Sequence[Pass],
    trials: Trials,
    inputs: Sequence[Tensor],
    tell: Callable[[str, int, int], None],
) -> list[Pass]:
    """Those exact passes without which the network that has them all would be slower.

    Each is judged among the others: one may pay only in the layout that another one brings.
    """
    carried, lowered = [], network
    for pass_ in offered:
        lowered, diff = rewrite(lowered, pass_)
        if diff.edits:
            carried.append(pass_)
    if not carried:
        return []
    tell(f"measuring {', '.join(pass_.name for pass_ in carried)}", 0, 2)
    without = [[other for other in carried if other is not pass_] for pass_ in carried if len(carried) > 1]
    times = _times(network, [carried, *without], trials, inputs)
    everything = times.pop(0)
    if everything.ms == math.inf:  # the engine does not take one of them
        return min(times, key=lambda one: one.ms, default=_Timed([], 0.0, False)).kept
    needed = [pass_ for pass_, one in zip(carried, times, strict=False) if one.ms > everything.ms]
    best = everything
    if times and len(needed) < len(carried):
        tell(f"measuring {', '.join(pass_.name for pass_ in needed) or 'none of them'}", 1, 2)
        best = min(_times(network, [needed, carried], trials, inputs), key=lambda one: one.ms)
    return best.kept


@dataclass(frozen=True)
class _Timed:
    """Exact passes, the median time in ms of the network with them, and the passes if that is faster than without."""

    passes: Sequence[Pass]
    ms: float
    is_faster: bool

    @property
    def kept(self) -> list[Pass]:
        return list(self.passes) if self.is_faster else []


def _times(network: Network, sets: Sequence[Sequence[Pass]], trials: Trials, inputs: Sequence[Tensor]) -> list[_Timed]:
    """The network after each of these lists of passes, all timed in one race; infinity where it does not run."""
    contestants = {ORIGINAL: network}
    for index, passes in enumerate(sets):
        contestants[str(index)] = carried_out(network, passes)
    found = {one.name: one for one in trials.networks(contestants, inputs)}
    timed = []
    for index, passes in enumerate(sets):
        one = found.get(str(index))
        timed.append(_Timed(passes, one.ms, one.is_faster) if one else _Timed(passes, math.inf, False))
    return timed


def carried_out(network: Network, passes: Iterable[Pass]) -> Network:
    """The network after all passes."""
    return after_each(network, passes)[-1]


def after_each(network: Network, passes: Iterable[Pass]) -> list[Network]:
    """The network before the first pass, and after every one."""
    return list(accumulate(passes, lambda before, pass_: rewrite(before, pass_)[0], initial=network))
