"""Which exact passes make a network faster where it will run, judged together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from torch import Tensor

from ..analysis.network import Network
from ..rewriting.engine import rewrite
from ..rewriting.pass_api import Pass
from .benchmark import Tell, Trials
from .candidates import ORIGINAL
from .samples import Sample, samples
from .subgraphs import Piece, extract


def faster_lowerings(
    network: Network,
    offered: Sequence[Pass],
    trials: Trials,
    inputs: Sequence[Tensor],
    tell: Tell,
) -> list[Pass]:
    """Those exact passes without which the network that has them all would be slower.

    Each is judged among the others: one may pay only in the layout that another one brings. They are timed on blocks of
    the network that they change, where such can be cut out, for what compiles slowly compiles a block sooner.
    """
    carried, places, lowered = [], [], network
    for pass_ in offered:
        lowered, diff = rewrite(lowered, pass_)
        if diff.edits:
            carried.append(pass_)
            places.append([edit.path for edit in diff.edits])
    if not carried:
        return []
    contest = _Contest(network, samples(network, places), trials, inputs)
    tell(f"measuring {', '.join(pass_.name for pass_ in carried)}", 0, 2)
    without = [[other for other in carried if other is not pass_] for pass_ in carried if len(carried) > 1]
    times = contest.times([carried, *without], tell)
    everything = times.pop(0)
    if everything.ms == math.inf:  # the engine does not take one of them
        return min(times, key=lambda one: one.ms, default=_Timed([], 0.0, False)).kept
    needed = [pass_ for pass_, one in zip(carried, times, strict=False) if one.ms > everything.ms]
    best = everything
    if times and len(needed) < len(carried):
        tell(f"measuring {', '.join(pass_.name for pass_ in needed) or 'none of them'}", 1, 2)
        best = min(contest.times([needed, carried], tell), key=lambda one: one.ms)
    return best.kept


@dataclass(frozen=True)
class _Timed:
    """Exact passes, the time in ms of the network (or of its samples) with them, and whether that is less."""

    passes: Sequence[Pass]
    ms: float
    is_faster: bool

    @property
    def kept(self) -> list[Pass]:
        return list(self.passes) if self.is_faster else []


@dataclass(frozen=True)
class _Contest:
    """What lists of passes make of a network, timed against it."""

    network: Network
    samples: Sequence[Sample]
    trials: Trials
    inputs: Sequence[Tensor]

    def times(self, sets: Sequence[Sequence[Pass]], tell: Tell) -> list[_Timed]:
        """The network after each of these lists of passes; infinity where it does not run."""
        after = [carried_out(self.network, passes) for passes in sets]
        raced = [[extract(one.program, sample.region) for one in after] for sample in self.samples]
        whole = [[piece for piece in pieces if piece is not None] for pieces in raced]
        if whole and whole == raced:
            return self._of_samples(sets, whole, tell)
        return self._of_networks(sets, after)

    def _of_samples(self, sets: Sequence[Sequence[Pass]], raced: Sequence[Sequence[Piece]], tell: Tell) -> list[_Timed]:
        """All samples together, each as often as there are blocks like it; what is equal is timed once."""
        named = []
        for sample, pieces in zip(self.samples, raced, strict=True):
            different = {piece.fingerprint: piece for piece in [sample.piece, *pieces]}
            named.append(dict(zip([ORIGINAL, *list(different)[1:]], different.values(), strict=True)))
        self.trials.prepare(named, tell)
        ms, fewest, slowest = 0.0, [0.0] * len(sets), [0.0] * len(sets)
        for sample, pieces, contestants in zip(self.samples, raced, named, strict=True):
            found = {one.name: one for one in self.trials.pieces(contestants)}
            original = found[ORIGINAL].ms or math.inf
            ms += original * sample.count
            for index, piece in enumerate(pieces):
                one = found.get(piece.fingerprint, found[ORIGINAL])
                high = one.interval[1] if one.interval else math.inf
                fewest[index] += (one.ms or math.inf) * sample.count
                slowest[index] += original * high * sample.count
        return [_Timed(*one) for one in zip(sets, fewest, (high < ms for high in slowest), strict=True)]

    def _of_networks(self, sets: Sequence[Sequence[Pass]], after: Sequence[Network]) -> list[_Timed]:
        """Whole networks, in one race."""
        contestants = {ORIGINAL: self.network, **{str(index): one for index, one in enumerate(after)}}
        found = {one.name: one for one in self.trials.networks(contestants, self.inputs)}
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
