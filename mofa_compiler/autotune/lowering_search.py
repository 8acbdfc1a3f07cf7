"""Which exact passes make a network faster where it will run, judged together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from torch import Tensor

from ..analysis.network import Network
from ..result.decisions import Alternative, Comparison
from ..rewriting.engine import tried
from ..rewriting.pass_api import Pass
from .benchmark import Tell, Trials
from .candidates import ORIGINAL
from .samples import Sample, samples
from .subgraphs import Piece, extract

SHARE = 0.4
"""Of the time for whole networks that these get, which are compared once more in the end"""


def faster_lowerings(
    network: Network,
    offered: Sequence[Pass],
    trials: Trials,
    inputs: Sequence[Tensor],
    tell: Tell,
) -> tuple[list[Pass], tuple[Comparison, ...]]:
    """Those exact passes without which the network that has them all would be slower, and the sets that were not kept.

    Each is judged among the others: one may pay only in the layout that another one brings. They are timed on blocks of
    the network that they change, where such can be cut out, for what compiles slowly compiles a block sooner.
    """
    carried, places, lowered = [], [], network
    for pass_ in offered:
        lowered, edits = tried(lowered, pass_)
        if edits:
            carried.append(pass_)
            places.append([edit.path for edit in edits])
    if not carried:
        return [], ()
    contest = _Contest(network, samples(network, places), trials, inputs)
    tell(f"measuring {', '.join(pass_.name for pass_ in carried)}", 0, 2)
    without = [[other for other in carried if other is not pass_] for pass_ in carried if len(carried) > 1]
    everything, *times = measured = contest.times([carried, *without], tell)
    if everything.ms == math.inf:  # the engine does not take one of them
        best = min(times, key=lambda one: one.ms, default=_Timed([]))
        return best.kept, _left(measured, best.kept)
    needed = [pass_ for pass_, one in zip(carried, times, strict=False) if one.ms > everything.ms]
    best = everything
    if times and len(needed) < len(carried):
        tell(f"measuring {', '.join(pass_.name for pass_ in needed) or 'none of them'}", 1, 2)
        again = contest.times([needed, carried], tell)
        best, measured = min(again, key=lambda one: one.ms), [*measured, *again]
    best = contest.sure(best)
    return best.kept, _left([*measured, best], best.kept)


def _left(measured: Sequence[_Timed], kept: Sequence[Pass]) -> tuple[Comparison, ...]:
    """What was timed and not kept, by the names of its passes, each as it was timed last."""
    found = {one.comparison.name: one.comparison for one in measured if one.comparison and one.passes != kept}
    return tuple(found.values())


@dataclass(frozen=True)
class _Timed:
    """Exact passes, and how the network, or blocks of it, were timed with them; None where they do not run."""

    passes: Sequence[Pass]
    comparison: Comparison | None = None

    @property
    def ms(self) -> float:
        """The median; infinity where it does not run."""
        return math.inf if self.comparison is None else self.comparison.ms

    @property
    def kept(self) -> list[Pass]:
        """The passes if it is faster with them; the race of whole networks says whether beyond the noise."""
        return list(self.passes) if self.comparison is not None and self.comparison.ratio < 1 else []


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

    def sure(self, one: _Timed) -> _Timed:
        """The same, timed on the whole network where it was faster on its blocks, but not beyond the noise.

        The blocks' intervals add up as if all erred in the same direction: where others are at work, that hides much.
        """
        found = one.comparison
        if not self.samples or found is None or found.is_faster or found.ratio >= 1:
            return one
        return self._of_networks([one.passes], [carried_out(self.network, one.passes)])[0]

    def _of_samples(self, sets: Sequence[Sequence[Pass]], raced: Sequence[Sequence[Piece]], tell: Tell) -> list[_Timed]:
        """All samples together, each as often as there are blocks like it; what is equal is timed once."""
        named = []
        for sample, pieces in zip(self.samples, raced, strict=True):
            different = {piece.fingerprint: piece for piece in [sample.piece, *pieces]}
            named.append(dict(zip([ORIGINAL, *list(different)[1:]], different.values(), strict=True)))
        self.trials.prepare(named, tell)
        found = [{one.name: one for one in self.trials.pieces(contestants)} for contestants in named]
        timed = []
        for index, passes in enumerate(sets):
            of_this = [
                (sample.count, alternatives[ORIGINAL], alternatives.get(pieces[index].fingerprint))
                for sample, pieces, alternatives in zip(self.samples, raced, found, strict=True)
            ]
            timed.append(_Timed(passes, _summed(f"{_name(passes)}, on its blocks", of_this)))
        return timed

    def _of_networks(self, sets: Sequence[Sequence[Pass]], after: Sequence[Network]) -> list[_Timed]:
        """Whole networks, in one race."""
        contestants = {ORIGINAL: self.network, **dict(zip(map(_name, sets), after, strict=True))}
        found = {one.name: one for one in self.trials.networks(contestants, self.inputs, share=SHARE)}
        return [_Timed(passes, found.get(_name(passes))) for passes in sets]


def _name(passes: Sequence[Pass]) -> str:
    return " + ".join(pass_.name for pass_ in passes) or "no exact pass"


def _summed(name: str, blocks: Sequence[tuple[int, Alternative, Alternative | None]]) -> Comparison | None:
    """Blocks, each so many times, the original and what became of it (None: nothing), as one; None where one fails."""
    times = []
    for count, original, other in blocks:
        one = other or original
        if original.ms is None or original.interval is None or one.ms is None or one.interval is None:
            return None
        edges = [original.ms * edge for edge in (*one.interval, *original.interval)]
        times.append([count * ms for ms in (one.ms, original.ms, *edges)])
    ms, whole, *edges = [math.fsum(each) for each in zip(*times, strict=True)]
    low, high, control_low, control_high = (edge / whole for edge in edges)
    return Comparison(name, ms, whole, ms / whole, (low, high), (control_low, control_high))


def carried_out(network: Network, passes: Iterable[Pass]) -> Network:
    """The network after all passes."""
    return after_each(network, passes)[-1]


def after_each(network: Network, passes: Iterable[Pass]) -> list[Network]:
    """The network before the first pass, and after every one."""
    return list(accumulate(passes, lambda before, pass_: tried(before, pass_)[0], initial=network))
