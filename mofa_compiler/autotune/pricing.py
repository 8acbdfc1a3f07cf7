"""Prices: what every alternative of every group of layers saves and costs, and the best choice under a bound.

That errors add up is an assumption, so that whole networks are calibrated and measured, and the budget corrected, until
the bound holds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Any

from ..analysis.network import Network
from ..base.progress import Forecast
from ..calibration import Calibrated, Calibration, Rehearsal, calibrate
from ..data import CalibrationImages
from ..graph.call_spec import tensor_leaves
from ..result.quality import Bound
from ..rewriting.pass_api import Pass, Phase
from . import schedule
from .benchmark import Tell
from .candidates import ORIGINAL, Candidate
from .held_out import HeldOut, surely
from .knapsack import Item, Price, best
from .lowering_search import after_each
from .search import Choice, Picked

PRICED_ON = 16
"""Images that a single alternative is fitted on"""

WORTHWHILE = 0.001
"""Part of the time of all groups that an alternative has to save to be priced"""

TRIES, TUNED = 3, 2
"""Whole networks that are fitted before each that is tuned, and tuned, for a bound, at most"""

TINY = 1e-12

NEAR = 0.8
"""Part of a bound that, once reached, is not worth another whole network"""


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
        forecast: of the phases in `schedule.PHASES`.
        until: when, by `time.monotonic`, nothing new is begun: no alternative is priced in the last third of what was
            left of the time, and no further network is calibrated after it.
    """

    def __init__(
        self, network: Network, choice: Choice, held_out: HeldOut, forecast: Forecast, until: float = math.inf
    ):
        self._network, self._choice, self._held_out, self._forecast = network, choice, held_out, forecast
        self._until, now = until, time.monotonic()
        self._priced_until = now + (until - now) * 2 / 3
        few = replace(held_out.calibration, batches=_some(held_out.calibration.batches))
        self._alone: dict[tuple[Pass, ...], tuple[float, ...]] = {}
        self._together: dict[tuple[tuple[Candidate, ...], bool], _Whole] = {}
        self._gain = 1.0
        """The error of a tuned network, as part of what it was when it was fitted"""
        with Rehearsal(network, few) as rehearsal:
            self._bypasses = self._cheap_bypasses(rehearsal)
            self._count, self._number = 0, sum(len(self._worthwhile(index)) for index in range(len(choice.groups)))
            self._pricing = forecast.phase("pricing", schedule.PRICE * self._number * held_out.seconds)
            prices = {index: [*self._prices(index, rehearsal)] for index in self._slowest_first}
        self.groups = [prices[index] for index in range(len(choice.groups))]

    def nothing(self, bound: Bound) -> Picked:
        """The choice that changes nothing."""
        return self._picked([prices[0] for prices in self.groups], _Whole(None, ()), 0, bound)

    def within(self, bound: Bound) -> Picked:
        """The choice that saves most time, of those whose network was calibrated and keeps the bound.

        Networks are fitted first, and tuned once they are near enough, with what tuning brought before taken into
        account. The bound has to hold by a standard error of the mean over the held-out inputs.
        """
        found, saved, count = self.nothing(bound), 0.0, len(self._together)
        goal = bound.allowed / self._gain
        tell = self._forecast.phase("fitting", counted=False)
        for _ in range(TUNED if self._is_tuned else 1):
            candidate = self._fitted_within(bound, goal)
            if candidate is None or (saved and time.monotonic() > self._until):
                break
            chosen, fitted = candidate
            text, made = f"tuning, {bound}{_so_far(saved)}", len(self._together) - count
            tell(text, made, TRIES + TUNED)
            whole = self._whole(chosen, self._is_tuned, _steps_of(tell, text, made))
            error, saving = surely(whole.errors), sum(one.saving for one in chosen)
            if error <= bound.allowed and saving > saved:
                found, saved = self._picked(chosen, whole, len(self._together) - count, bound), saving
            if NEAR * bound.allowed <= error <= bound.allowed or not math.isfinite(error):
                break
            if fitted > 0:
                self._gain = min(max(error / fitted, 0.2), 1.0)
            goal = (1 + NEAR) / 2 * bound.allowed / self._gain
        return found

    def _fitted_within(self, bound: Bound, goal: float) -> tuple[list[Price], float] | None:
        """The choice that saves most, of those whose network, fitted, has an error up to the goal, and that error."""
        found, saved, budget, low, high = None, 0.0, goal, 0.0, math.inf
        tell = self._forecast.phase("fitting", counted=False)
        most = sum(max(one.saving for one in prices) for prices in self.groups)
        for index in range(TRIES):
            chosen = best(self._items, budget)
            if not self._approximate(self._choice.made([one.candidate for one in chosen])):
                break
            tell(f"calibrating, {bound}{_so_far(saved)}", index, TRIES + TUNED)
            error, saving = surely(self._whole(chosen, False).errors), sum(one.saving for one in chosen)
            if error <= goal:
                low = budget
                if saving > saved:
                    found, saved = (chosen, error), saving
                if error >= NEAR * goal or saving >= most:
                    break
            else:
                high = budget
            wanted = budget * (1 + NEAR) / 2 * goal / max(error, goal / 8, TINY)
            budget = wanted if low < wanted < high else (low + min(high, 2 * wanted)) / 2
            if high - low < 0.02 * high or (found and time.monotonic() > self._until):
                break
        return found

    def _prices(self, index: int, rehearsal: Rehearsal) -> Iterator[Price]:
        group = self._choice.groups[index]
        originals = [next(iter(one.pieces)) for one in self._choice.groups]
        yield Price(originals[index], 0.0)
        for candidate, saving in self._worthwhile(index).items():
            if time.monotonic() > self._priced_until:
                return
            self._pricing(f"pricing {candidate.name} at {group.paths[0]}", self._count, self._number)
            self._count += 1
            picked = [*originals[:index], candidate, *originals[index + 1 :]]
            passes = tuple(self._approximate(self._choice.made(picked)))
            if passes not in self._alone:
                self._alone[passes] = self._rehearsed(passes, rehearsal)
            yield Price(candidate, saving, self._alone[passes])

    def _worthwhile(self, index: int) -> dict[Candidate, float]:
        """Alternatives of a group that are faster beyond the noise, and the ms that each saves."""
        group, times = self._choice.groups[index], {one.name: one for one in self._choice.measured[index]}
        before, found = times[ORIGINAL].ms, {}
        if group.bypass and group.bypass.path not in self._bypasses:
            return {}
        for candidate in group.pieces:
            one = times[candidate.name]
            if before is None or one.ms is None or one.interval is None or one.interval[1] >= 1:
                continue
            saving = (before - one.ms) * len(group.paths)
            if saving >= WORTHWHILE * self._whole_ms:
                found[candidate] = saving
        return found

    def _cheap_bypasses(self, rehearsal: Rehearsal) -> set[str]:
        """Parts of the network that are worth trying without, by path."""
        told = [pass_.informed(self._network, rehearsal.watch) for pass_ in self._choice.bypassing]
        return {one.path for pass_ in told for one in pass_.bypasses(self._network)}

    @cached_property
    def _items(self) -> list[Item]:
        """The groups as there is to choose from them."""
        groups = zip(self._choice.groups, self.groups, strict=True)
        return [Item(prices, group.paths, group.bypass.gone if group.bypass else ()) for group, prices in groups]

    @property
    def _slowest_first(self) -> list[int]:
        """The groups by the time that all of their layers take."""
        return sorted(range(len(self._times)), key=lambda index: -self._times[index])

    @property
    def _whole_ms(self) -> float:
        return sum(ms for ms, group in zip(self._times, self._choice.groups, strict=True) if not group.bypass)

    @cached_property
    def _times(self) -> list[float]:
        """ms of each group's originals, together; pieces overlap."""
        groups = zip(self._choice.groups, self._choice.measured, strict=True)
        return [(found[0].ms or 0.0) * len(group.paths) for group, found in groups]

    def _whole(self, chosen: Sequence[Price], tuned: bool, tell: Tell = lambda *_: None) -> _Whole:
        """The network with these, fitted, and tuned where that was asked for."""
        key = tuple(one.candidate for one in chosen), tuned
        if key not in self._together:
            calibration = self._held_out.calibration
            passes = self._approximate(self._choice.made(key[0]))
            calibration = calibration if tuned else replace(calibration, tuning=0)
            self._together[key] = self._fitted(passes, calibration, tell)
        return self._together[key]

    @property
    def _is_tuned(self) -> bool:
        return self._held_out.calibration.tuning > 0

    def _rehearsed(self, passes: Sequence[Pass], rehearsal: Rehearsal) -> tuple[float, ...]:
        """What passes add to the error of each held-out input, fitted on few others; remembered on disk."""
        if not passes:
            return ()
        key = {"priced": [repr(one) for one in passes], "held_out": self._held_out.fingerprint, "few": PRICED_ON}
        if (known := self._choice.trials.remembered(key, tuple[float, ...])) is not None:
            return known
        made = rehearsal.fitted(lambda network: after_each(network, passes)[1:])
        errors = tuple(self._held_out.errors(made.program.graph_module, few=True))
        if all(map(math.isfinite, errors)):
            self._choice.trials.remember(key, errors)
        return errors

    def _fitted(self, passes: Sequence[Pass], calibration: Calibration, tell: Tell) -> _Whole:
        networks = after_each(self._network, passes)
        if len(networks) < 2:
            return _Whole(None, ())
        found = calibrate(calibration, networks, lambda other: after_each(other, passes)[1:], tell)
        return _Whole(found, tuple(self._held_out.errors(found.networks[-1].program.graph_module)))

    def _picked(self, chosen: Sequence[Price], whole: _Whole, tried: int, bound: Bound) -> Picked:
        network = self._network if whole.calibrated is None else whole.calibrated.networks[-1]
        candidates = tuple(one.candidate for one in chosen)
        gone, groups = self._choice.gone(candidates), zip(self._choice.groups, chosen, self.groups, strict=True)
        reasons = [
            "goes with what is around it" if gone.issuperset(group.paths) else _reason(one, prices, bound)
            for group, one, prices in groups
        ]
        quality = self._held_out.quality(network.program.graph_module, tried, bound)
        worths = tuple({one.candidate.name: bound.value(one.errors) for one in prices[1:]} for prices in self.groups)
        return Picked(candidates, tuple(reasons), whole.calibrated, quality, worths)

    @staticmethod
    def _approximate(passes: Iterable[Pass]) -> list[Pass]:
        return [one for one in passes if one.phase is not Phase.LOWER]


def _steps_of(tell: Tell, text: str, made: int) -> Tell:
    """What tells the steps of a tuning, which takes half a minute, and nothing else of a calibration."""

    def step(what: str, done: int, total: int) -> None:
        if what == "tuning":
            tell(f"{text}, step {done + 1} of {total}", made, TRIES + TUNED)

    return step


def _so_far(saved: float) -> str:
    return f"; best so far saves {saved:.3g} ms" if saved else ""


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
