"""Prices: what every alternative of every group of layers saves and costs, and the best choice under a bound.

The choice is a multiple-choice knapsack: one alternative a group, as much time saved as possible, errors that add up
to no more than the bound allows (Kellerer, Pferschy, Pisinger: Knapsack Problems, chapter 11). That errors add up is an
assumption, so that whole networks are calibrated and measured, and the budget corrected, until the bound holds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from statistics import fmean, stdev
from typing import Any

import numpy as np

from ..analysis.network import Network
from ..calibration import Calibrated, Calibration, Rehearsal, calibrate
from ..data import CalibrationImages
from ..graph.call_spec import tensor_leaves
from ..result.quality import Bound
from ..rewriting.pass_api import Pass, Phase
from .benchmark import Tell
from .candidates import ORIGINAL, Candidate
from .held_out import HeldOut
from .lowering_search import after_each
from .search import Choice, Picked

UNITS = 5000
"""Into which a budget is divided"""

PRICED_ON = 16
"""Images that a single alternative is fitted on"""

WORTHWHILE = 0.001
"""Part of the time of all groups that an alternative has to save to be priced"""

TRIES = 4
"""Whole networks that are calibrated for a bound, at most"""

NEAR = 0.8
"""Part of a bound that, once reached, is not worth another whole network"""


@dataclass(frozen=True)
class Price:
    """What one alternative of a group saves and costs.

    Attributes:
        candidate: the alternative.
        saving: ms, over all layers of the group.
        errors: what it adds to the error of each held-out input, alone (see `Bound.error`).
    """

    candidate: Candidate
    saving: float
    errors: tuple[float, ...] = ()

    @property
    def error(self) -> float:
        """What it adds in the mean, at least nothing."""
        return max(fmean(self.errors or (0.0,)), 0.0)


@dataclass(frozen=True)
class _Whole:
    """A network with several groups changed and fitted, and what that adds to the error of each held-out input."""

    calibrated: Calibrated | None
    errors: tuple[float, ...]


class Prices:
    """Prices of all that is faster than the original, and choices by them.

    Args:
        network: the original, captured at any size.
        choice: what there is to choose from, measured.
        held_out: what errors are measured on, and what is fitted to.
        tell: told before every step.
        until: when, by `time.monotonic`, nothing new is begun: no alternative is priced in the last third of what was
            left of the time, and no further network is calibrated after it.
    """

    def __init__(self, network: Network, choice: Choice, held_out: HeldOut, tell: Tell, until: float = math.inf):
        self._network, self._choice, self._held_out, self._tell = network, choice, held_out, tell
        self._until, now = until, time.monotonic()
        self._priced_until = now + (until - now) * 2 / 3
        few = replace(held_out.calibration, batches=_some(held_out.calibration.batches))
        self._alone: dict[tuple[Pass, ...], tuple[float, ...]] = {}
        self._together: dict[tuple[Candidate, ...], _Whole] = {}
        with Rehearsal(network, few) as rehearsal:
            prices = {index: [*self._prices(index, rehearsal)] for index in self._slowest_first}
        self.groups = [prices[index] for index in range(len(choice.groups))]

    def nothing(self, bound: Bound) -> Picked:
        """The choice that changes nothing."""
        return self._picked([prices[0] for prices in self.groups], _Whole(None, ()), 0, bound)

    def within(self, bound: Bound) -> Picked:
        """The choice that saves most time, of those whose network was calibrated and keeps the bound.

        The bound has to hold by a standard error of the mean over the held-out inputs.
        """
        best = self.nothing(bound)
        budget, low, high, tried, saved = bound.allowed, 0.0, math.inf, 0, 0.0
        for _ in range(4 * TRIES):
            chosen = knapsack(self.groups, budget)
            names = tuple(one.candidate for one in chosen)
            if not self._approximate(self._choice.made(names)):
                break
            known = names in self._together
            if not known and tried and time.monotonic() > self._until:
                break
            so_far = f"; best so far saves {saved:.3g} ms" if saved else ""
            self._tell(f"calibrating, {bound}{so_far}", tried, TRIES)
            whole = self._whole(names)
            tried += not known
            error, saving = _surely(whole.errors), sum(one.saving for one in chosen)
            if error <= bound.allowed:
                low = budget
                if saving > saved:
                    best, saved = self._picked(chosen, whole, tried, bound), saving
                if error >= NEAR * bound.allowed or saving >= sum(max(p.saving for p in g) for g in self.groups):
                    break
            else:
                high = budget
            wanted = budget * (1 + NEAR) / 2 * bound.allowed / max(error, bound.allowed / 8)
            budget = wanted if low < wanted < high else (low + min(high, 2 * wanted)) / 2
            if tried == TRIES or high - low < 0.02 * high:
                break
        return best

    def _prices(self, index: int, rehearsal: Rehearsal) -> Iterator[Price]:
        group, times = self._choice.groups[index], {one.name: one for one in self._choice.measured[index]}
        originals = [next(iter(one.pieces)) for one in self._choice.groups]
        yield Price(originals[index], 0.0)
        before = times[ORIGINAL].ms
        for candidate in group.pieces:
            one = times[candidate.name]
            if before is None or one.ms is None or one.interval is None or one.interval[1] >= 1:
                continue
            saving = (before - one.ms) * len(group.paths)
            if saving < WORTHWHILE * self._whole_ms:
                continue
            if time.monotonic() > self._priced_until:
                return
            self._tell(f"pricing {candidate.name} at {group.paths[0]}", index, len(self._choice.groups))
            picked = [*originals[:index], candidate, *originals[index + 1 :]]
            passes = tuple(self._approximate(self._choice.made(picked)))
            if passes not in self._alone:
                self._alone[passes] = self._rehearsed(passes, rehearsal)
            yield Price(candidate, saving, self._alone[passes])

    @property
    def _slowest_first(self) -> list[int]:
        """The groups by the time that all of their layers take."""
        return sorted(range(len(self._times)), key=lambda index: -self._times[index])

    @property
    def _whole_ms(self) -> float:
        return sum(self._times)

    @cached_property
    def _times(self) -> list[float]:
        """ms of each group's originals, together; pieces overlap."""
        groups = zip(self._choice.groups, self._choice.measured, strict=True)
        return [(found[0].ms or 0.0) * len(group.paths) for group, found in groups]

    def _whole(self, names: tuple[Candidate, ...]) -> _Whole:
        if names not in self._together:
            passes = self._approximate(self._choice.made(names))
            self._together[names] = self._fitted(passes, self._held_out.calibration)
        return self._together[names]

    def _rehearsed(self, passes: Sequence[Pass], rehearsal: Rehearsal) -> tuple[float, ...]:
        """What passes add to the error of each held-out input, fitted on few others."""
        if not passes:
            return ()
        made = rehearsal.fitted(lambda network: after_each(network, passes)[1:])
        return tuple(self._held_out.errors(made.program.graph_module))

    def _fitted(self, passes: Sequence[Pass], calibration: Calibration) -> _Whole:
        networks = after_each(self._network, passes)
        if len(networks) < 2:
            return _Whole(None, ())
        quiet: Tell = lambda *_: None  # noqa: E731
        found = calibrate(calibration, networks, lambda other: after_each(other, passes)[1:], quiet)
        return _Whole(found, tuple(self._held_out.errors(found.networks[-1].program.graph_module)))

    def _picked(self, chosen: Sequence[Price], whole: _Whole, tried: int, bound: Bound) -> Picked:
        network = self._network if whole.calibrated is None else whole.calibrated.networks[-1]
        reasons = [_reason(one, prices, bound) for one, prices in zip(chosen, self.groups, strict=True)]
        quality = self._held_out.quality(network.program.graph_module, tried, bound)
        worths = tuple({one.candidate.name: bound.value(one.errors) for one in prices[1:]} for prices in self.groups)
        return Picked(tuple(one.candidate for one in chosen), tuple(reasons), whole.calibrated, quality, worths)

    @staticmethod
    def _approximate(passes: Iterable[Pass]) -> list[Pass]:
        return [one for one in passes if one.phase is not Phase.LOWER]


def knapsack(groups: Sequence[Sequence[Price]], budget: float) -> list[Price]:
    """One of each group, of the first of which nothing is lost: what saves most with errors up to `budget` in sum.

    Multiple-choice knapsack by dynamic programming, errors rounded up to 1/5000 of the budget.
    """
    if budget <= 0:
        return [max((one for one in prices if one.error <= 0), key=lambda one: one.saving) for prices in groups]
    best, taken = np.zeros(UNITS + 1), []
    for prices in groups:
        rows = np.full((len(prices), UNITS + 1), -np.inf)
        for row, one in zip(rows, prices, strict=True):
            units = math.ceil(one.error / budget * UNITS - 1e-9) if one.error < 2 * budget else UNITS + 1
            if units <= UNITS:
                row[units:] = best[: UNITS + 1 - units] + one.saving
        taken.append((rows.argmax(0), prices))
        best = rows.max(0)
    left, chosen = UNITS, []
    for choice, prices in reversed(taken):
        one = prices[choice[left]]
        left -= math.ceil(one.error / budget * UNITS - 1e-9)
        chosen.append(one)
    return chosen[::-1]


def _surely(errors: Sequence[float]) -> float:
    """The mean and its standard error: what further inputs of the kind will hardly exceed."""
    if not all(map(math.isfinite, errors)):
        return math.inf
    spread = stdev(errors) / math.sqrt(len(errors)) if len(errors) > 1 else 0.0
    return fmean(errors) + spread if errors else 0.0


def _some(batches: Iterable[Any]) -> Iterable[Any]:
    """Fewer inputs, for what is measured often."""
    if isinstance(batches, CalibrationImages):
        return batches.first(PRICED_ON)
    sizes = accumulate(next((len(leaf) for leaf in tensor_leaves(batch) if leaf.dim()), 1) for batch in batches)
    return [batch for batch, size in zip(batches, sizes, strict=True) if size <= PRICED_ON] or list(batches)[:1]


def _reason(one: Price, prices: Sequence[Price], bound: Bound) -> str:
    """Why this was picked of a group, in a line."""
    if one.saving:
        return f"saves {one.saving:.3g} ms for {bound.said(bound.value(one.errors))} alone"
    if len(prices) < 2:
        return "nothing is faster beyond the noise"
    best = max(prices, key=lambda other: other.saving)
    return f"{best.candidate.name} would save {best.saving:.3g} ms for {bound.said(bound.value(best.errors))} alone"
