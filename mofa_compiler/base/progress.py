"""Progress of long work, told to whoever asked for it, and how long it takes still."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Self, TypeAlias

Seconds: TypeAlias = float | Callable[[], float]
"""What a phase takes; a function where that follows from what was measured in this run"""

Progress = Callable[[str, int, int], None]
"""Called before each step with what it is, how many are done, and how many there are"""

KNOWN = 10.0
"""Seconds of work that went as expected, which those that were measured are added to"""


class Step(str):
    """What is being done, where it is known how long all of the work takes still.

    Attributes:
        left: seconds.
        share: of the work that is done, 0 to 1.
    """

    left: float
    share: float

    def __new__(cls, text: str, left: float, share: float) -> Self:
        step = super().__new__(cls, text)
        step.left, step.share = left, share
        return step


class Forecast:
    """Phases of long work, every step of which is told with the time that all of them take still.

    What is expected of phases to come is corrected by what it came to in those that are done: another machine, a busy
    one.

    Args:
        tell: told of a `Step` before each.
        expected: seconds of every phase, in order.
        clock: seconds, from any start.
        until: when, by the clock, all of it ends, whatever is not done by then.
    """

    def __init__(
        self,
        tell: Progress,
        expected: Mapping[str, float],
        clock: Callable[[], float] = time.monotonic,
        until: float = math.inf,
    ):
        self._tell, self._clock, self._until = tell, clock, until
        self._expected: dict[str, Seconds] = dict(expected)
        self._start = self._since = clock()
        self._now, self._share = "", 0.0
        self._took: dict[str, float] = {}

    def expect(self, name: str, seconds: Seconds) -> None:
        """More is known of a phase to come than was at first."""
        self._expected[name] = seconds

    def phase(self, name: str, expected: Seconds | None = None, *, counted: bool = True) -> Progress:
        """Begin a phase, by when all before it are done; returns what is told of its steps.

        Args:
            name: one of those that are expected.
            expected: seconds, where more is known than was at first.
            counted: whether its steps take about as long each, and none is left out.
        """
        if self._now and self._now != name:
            self._took[self._now] = self._clock() - self._since
        if self._now != name:
            self._now, self._since, self._share = name, self._clock(), 0.0
        if expected is not None:
            self._expected[name] = expected

        def tell(step: str, done: int, total: int) -> None:
            self._share = done / total if total and counted else 0.0
            left, gone = self.left, self._clock() - self._start
            self._tell(Step(step, left, gone / max(gone + left, 1e-9)), done, total)

        return tell

    @property
    def left(self) -> float:
        """Seconds that all phases take still."""
        names = list(self._expected)
        later = names[names.index(self._now) + 1 :] if self._now else names
        done = [name for name in names if name in self._took]
        pace = (KNOWN + sum(self._took[name] for name in done)) / (KNOWN + sum(map(self._seconds, done)))
        gone = self._clock() - self._since
        here = self._seconds(self._now, pace)
        # The further it is, the more its own pace says.
        here = (1 - self._share) * ((1 - self._share) * here + gone) if self._share else max(here - gone, 0.0)
        left = here + sum(self._seconds(name, pace) for name in later)
        return min(left, max(self._until - self._clock(), 0.0))

    def _seconds(self, name: str, pace: float = 1.0) -> float:
        """What is expected of a phase by now; at this pace, where it was not measured in this run."""
        expected = self._expected.get(name, 0.0)
        return expected() if callable(expected) else pace * expected
