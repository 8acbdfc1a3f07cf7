"""Which exact passes make a network faster where it will run, judged together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from torch import Tensor

from ..analysis.network import Network
from ..result.decisions import Comparison
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
) -> tuple[list[Pass], tuple[Comparison, ...]]:
    """Those exact passes without which the network that has them all would be slower, and the sets that were not kept.

    Each is judged among the others: one may pay only in the layout that another one brings.
    """
    carried, lowered = [], network
    for pass_ in offered:
        lowered, diff = rewrite(lowered, pass_)
        if diff.edits:
            carried.append(pass_)
    if not carried:
        return [], ()
    tell(f"measuring {', '.join(pass_.name for pass_ in carried)}", 0, 2)
    without = [[other for other in carried if other is not pass_] for pass_ in carried if len(carried) > 1]
    everything, *times = measured = _times(network, [carried, *without], trials, inputs)
    if everything.ms == math.inf:  # the engine does not take one of them
        best = min(times, key=lambda one: one.ms, default=_Timed([]))
        return best.kept, _left(measured, best.kept)
    needed = [pass_ for pass_, one in zip(carried, times, strict=False) if one.ms > everything.ms]
    best = everything
    if times and len(needed) < len(carried):
        tell(f"measuring {', '.join(pass_.name for pass_ in needed) or 'none of them'}", 1, 2)
        again = _times(network, [needed, carried], trials, inputs)
        best, measured = min(again, key=lambda one: one.ms), [*measured, *again]
    return best.kept, _left(measured, best.kept)


def _left(measured: Sequence[_Timed], kept: Sequence[Pass]) -> tuple[Comparison, ...]:
    """What was timed and not kept, by the names of its passes, each as it was timed last."""
    found = {one.comparison.name: one.comparison for one in measured if one.comparison and one.passes != kept}
    return tuple(found.values())


@dataclass(frozen=True)
class _Timed:
    """Exact passes, and how the network with them was timed; None where it does not run."""

    passes: Sequence[Pass]
    comparison: Comparison | None = None

    @property
    def ms(self) -> float:
        """The median; infinity where it does not run."""
        return math.inf if self.comparison is None else self.comparison.ms

    @property
    def kept(self) -> list[Pass]:
        """The passes if they make the network faster."""
        return list(self.passes) if self.comparison is not None and self.comparison.is_faster else []


def _times(network: Network, sets: Sequence[Sequence[Pass]], trials: Trials, inputs: Sequence[Tensor]) -> list[_Timed]:
    """The network after each of these lists of passes, all timed in one race."""
    names = [" + ".join(pass_.name for pass_ in passes) or "no exact pass" for passes in sets]
    contestants = {ORIGINAL: network}
    contestants |= {name: carried_out(network, passes) for name, passes in zip(names, sets, strict=True)}
    found = {one.name: one for one in trials.networks(contestants, inputs)}
    return [_Timed(passes, found.get(name)) for name, passes in zip(names, sets, strict=True)]


def carried_out(network: Network, passes: Iterable[Pass]) -> Network:
    """The network after all passes."""
    return after_each(network, passes)[-1]


def after_each(network: Network, passes: Iterable[Pass]) -> list[Network]:
    """The network before the first pass, and after every one."""
    return list(accumulate(passes, lambda before, pass_: rewrite(before, pass_)[0], initial=network))
