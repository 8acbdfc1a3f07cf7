"""How long work takes still, told with every step."""

from __future__ import annotations

import pytest

from mofa_compiler.base.progress import KNOWN, Forecast, Step


class Work:
    """A clock that the test moves, and what was told."""

    def __init__(self, **expected: float):
        self.now, self.told = 100.0, list[Step]()
        self.forecast = Forecast(self._tell, expected, clock=lambda: self.now)

    def _tell(self, step: str, done: int, total: int) -> None:
        assert isinstance(step, Step)
        self.told.append(step)

    def steps(self, name: str, count: int, seconds: float, expected: float | None = None, counted: bool = True) -> None:
        """A phase of as many steps, each of which takes so long."""
        tell = self.forecast.phase(name, expected, counted=counted)
        for index in range(count):
            tell(f"{name} {index}", index, count)
            self.now += seconds

    @property
    def left(self) -> list[float]:
        return [round(step.left, 6) for step in self.told]


def test_what_goes_as_expected_is_foretold() -> None:
    work = Work(first=4, second=6)
    work.steps("first", 4, 1.0)
    work.steps("second", 2, 3.0)
    assert work.left == [10, 9, 8, 7, 6, 3]
    assert [step.share for step in work.told] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.7])
    assert work.told[0] == "first 0"


def test_a_slower_machine_is_slower_in_what_comes_too() -> None:
    work = Work(first=30, second=30, third=30)
    work.steps("first", 3, 20.0)
    work.steps("second", 1, 60.0)
    assert work.left[0] == 90
    assert work.left[3] == pytest.approx(60 * (KNOWN + 60) / (KNOWN + 30))
    work.steps("third", 2, 30.0)
    assert work.left[-1] == pytest.approx(30, rel=0.2), "of a phase that is half done, its own pace says most"


def test_more_is_known_when_a_phase_begins() -> None:
    work = Work(first=5, second=5)
    work.steps("first", 1, 5.0)
    work.steps("second", 10, 5.0, expected=50)
    assert work.left == [10, *range(50, 0, -5)]


def test_what_is_left_out_takes_no_time() -> None:
    work = Work(first=10, second=10, third=10)
    work.steps("third", 2, 5.0)
    assert work.left == [10, 5]


def test_steps_that_do_not_count_say_nothing_of_how_much_is_left() -> None:
    work = Work(first=20, second=1)
    work.steps("first", 5, 6.0, counted=False)
    assert work.left == [21, 15, 9, 3, 1]


def test_what_is_expected_may_become_better_known_on_the_way() -> None:
    work = Work(first=4, second=100)
    seconds = 20.0
    work.forecast.expect("second", lambda: seconds)
    work.steps("first", 1, 4.0)
    seconds = 6.0
    work.steps("second", 2, 3.0)
    assert work.left == [24, 6, 3]


def test_nothing_is_left_after_the_end() -> None:
    work = Work(first=50, second=50)
    work.forecast = Forecast(work._tell, {"first": 50, "second": 50}, clock=lambda: work.now, until=work.now + 30)
    work.steps("first", 4, 10.0)
    assert work.left == [30, 20, 10, 0]


def test_the_pace_of_others_says_nothing_of_what_was_measured() -> None:
    work = Work(first=10, second=10, third=10)
    work.forecast.expect("third", lambda: 7.0)
    work.steps("first", 1, 30.0)
    work.steps("second", 1, 10.0)
    assert work.left[1] == pytest.approx(7 + 10 * (KNOWN + 30) / (KNOWN + 10))
