"""Several compiled networks timed against one another: interleaved, in one process, with a control.

Shared machines are noisy, and their speed drifts. So every round runs all of them, in an order drawn anew, and only
times of the same round are set against one another.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..base.errors import EngineError
from .engine import Compiled, Engine

SAMPLE_MS = 4.0
"""A shorter run is repeated within a sample until it takes about as long"""

SURELY_LONG = 5
"""Times as long as that, a single run is a sample, whatever disturbed it"""

RESAMPLES = 1000

Clock: TypeAlias = Callable[[], float]
"""Seconds, from any start"""


@dataclass(frozen=True)
class Race:
    """Times in ms, (rounds, runners + 1): the last column is the first runner once more, the control.

    From when on a runner was out, its times are NaN.

    Attributes:
        times: as said.
        repeats: runs in a sample, of each runner.
        stopped: why it ended: `narrow enough`, `time limit` or `most rounds`.
    """

    times: NDArray[np.float64]
    repeats: tuple[int, ...]
    stopped: str

    @property
    def medians(self) -> list[float]:
        """Median ms of each runner."""
        return [float(value) for value in np.nanmedian(self.times[:, :-1], axis=0)]

    def ratio(self, one: int, other: int) -> tuple[float, tuple[float, float]]:
        """Median of runner `one` ÷ median of `other`, and the bootstrap's 95 % interval of that (over rounds)."""
        return _ratio(self.times[:, one], self.times[:, other])

    @property
    def left(self) -> list[int]:
        """The runners that were not out."""
        return [int(index) for index in np.flatnonzero(~np.isnan(self.times[-1, :-1]))]

    @property
    def control(self) -> tuple[float, tuple[float, float]]:
        """The same of the first runner and itself: 1 but for noise."""
        return _ratio(self.times[:, -1], self.times[:, 0])


def _ratio(one: NDArray[np.float64], other: NDArray[np.float64]) -> tuple[float, tuple[float, float]]:
    both = ~np.isnan(one + other)
    one, other, rounds = one[both], other[both], int(both.sum())
    drawn = np.random.default_rng(0).integers(rounds, size=(RESAMPLES, rounds))
    ratios = np.median(one[drawn], axis=1) / np.median(other[drawn], axis=1)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(np.median(one) / np.median(other)), (float(low), float(high))


def race(
    runners: Sequence[Compiled],
    engine: Engine,
    threads: int,
    *,
    tolerance: float = 0.01,
    seconds: float = 20.0,
    rounds: tuple[int, int] = (10, 1000),
    tell: Callable[[int, float], None] | None = None,
    out: Callable[[Race], Collection[int]] | None = None,
) -> Race:
    """Time networks that `engine` has compiled.

    Args:
        runners: the networks; ratios to the first decide when it is enough.
        engine: whose they are.
        threads: how many each may use.
        tolerance: stop when the half-width of every ratio's interval is below this share of it.
        seconds: stop after this time anyway.
        rounds: at least and at most so many.
        tell: told after every round how many there were and how wide the widest interval is.
        out: of what was timed so far, the runners that need not be timed any further; never the first one. Their part
            of the time is not given to the others.

    Raises:
        EngineError: the engine does not compute in its precision here, but emulates it.
    """
    if engine.emulated:
        what = f"{engine.name} in {engine.precision}"
        raise EngineError(f"times of {what} would say nothing here: {engine.emulated}", code="not-installed")
    with engine.running(threads), _no_garbage():
        clock = _clock(runners[0], engine, threads)
        repeats = [_warmed_up(runner, clock) for runner in runners]
        order = np.random.default_rng(0)
        contestants, left = [*range(len(runners)), 0], set(range(len(runners)))
        times: list[list[float]] = []
        stopped, end, check = "most rounds", time.perf_counter() + seconds, rounds[0]
        while len(times) < rounds[1]:
            row = [math.nan] * len(contestants)
            for place in order.permutation(len(contestants)):
                index = contestants[place]
                if index in left:
                    row[place] = _sample(runners[index], repeats[index], clock)
            times.append(row)
            if len(times) >= check:
                if out is not None:
                    now, before = time.perf_counter(), len(left)
                    left -= set(out(Race(np.asarray(times), tuple(repeats), stopped)))
                    end = now + (end - now) * len(left) / before
                if left == {0} and len(runners) > 1:
                    stopped = "narrow enough"
                    break
                wide = _widest(np.asarray(times), left)
                if tell:
                    tell(len(times), wide)
                if wide < tolerance:
                    stopped = "narrow enough"
                    break
                check = max(check + 5, int(1.2 * check))
            if time.perf_counter() > end and len(times) >= 3:
                stopped = "time limit"
                break
    return Race(np.asarray(times), tuple(repeats), stopped)


def shortest(runner: Compiled, engine: Engine, threads: int) -> float:
    """ms of the shortest of a few runs, warm: what it takes where nothing disturbs it."""
    with _no_garbage(), engine.running(threads):
        clock = _clock(runner, engine, threads)
        repeats = _warmed_up(runner, clock)
        return min(_sample(runner, repeats, clock) for _ in range(3))


def _clock(runner: Compiled, engine: Engine, threads: int) -> Clock:
    """Where one thread computes, its processor's time: what others do on the machine meanwhile counts little.

    Elsewhere, and where threads of this process do other things or the work is done outside of it, the time that goes
    by.
    """
    if threads != 1 or engine.device != "cpu":
        return time.perf_counter
    runner.run()
    before, start = time.process_time(), time.perf_counter()
    for _ in range(3):
        runner.run()
    share = (time.process_time() - before) / max(time.perf_counter() - start, 1e-9)
    return time.process_time if 0.05 < share < 1.05 else time.perf_counter


@contextmanager
def _no_garbage() -> Iterator[None]:
    """Python's garbage collector does not run in the middle of somebody's sample.

    It does not run before, either: going through what torch and an exporter keep takes longer than a short race.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _widest(times: NDArray[np.float64], left: set[int]) -> float:
    """Half-width of the widest interval of a ratio to the first runner, relative to the ratio; of those left."""
    widths = []
    for column in (*sorted(left - {0}), -1):
        ratio, (low, high) = _ratio(times[:, column], times[:, 0])
        widths.append((high - low) / 2 / ratio)
    return max(widths)


def _warmed_up(runner: Compiled, clock: Clock) -> int:
    """Run it until it is warm; returns how many runs make a sample."""
    runner.run()
    if _sample(runner, 1, clock) > SURELY_LONG * SAMPLE_MS:
        return 1
    once = min(_sample(runner, 1, clock) for _ in range(3))
    return max(1, round(SAMPLE_MS / max(once, 1e-3)))


def _sample(runner: Compiled, repeats: int, clock: Clock) -> float:
    """Mean ms of so many runs."""
    start = clock()
    for _ in range(repeats):
        runner.run()
    return (clock() - start) / repeats * 1e3
