"""Races of runners whose times are known: a clock that they move on stands in for the machine's."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from torch import Tensor, nn

from mofa_compiler.runtime import Compiled, Engine, Measurement, Race, race, racing


class Clock:
    """Seconds pass only when a runner runs."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Runner(Compiled):
    def __init__(self, clock: Clock, ms: Iterator[float]):
        self.clock, self.ms, self.runs = clock, ms, 0

    def run(self) -> None:
        assert not gc.isenabled()
        self.runs += 1
        self.clock.now += next(self.ms) / 1e3

    def outputs(self, inputs: Sequence[Tensor] | None = None) -> list[Tensor]:
        return []


class Nothing(Engine):
    name = "nothing"
    summary = "runs what is told how long it takes"

    def _pack(self, module: nn.Module, inputs: Sequence[Tensor]) -> bytes:
        raise NotImplementedError

    def _load(self, packed: bytes, inputs: Sequence[Tensor], threads: int) -> Compiled:
        raise NotImplementedError


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Runner]:
    """Makes a runner that takes so many ms, give or take a share, at random."""
    clock = Clock()
    for name in ("perf_counter", "process_time"):
        monkeypatch.setattr(f"mofa_compiler.runtime.racing.time.{name}", clock)

    def make(ms: float, spread: float = 0.0, seed: int = 0) -> Runner:
        random = np.random.default_rng(seed)
        return Runner(clock, (ms * (1 + spread * random.standard_normal()) for _ in itertools.count()))

    return make


def measurement(result: Race, a: int = 1, b: int = 0) -> Measurement:
    return Measurement.of(result, a, b, Nothing(), 1, [])


def test_a_ratio_is_that_of_the_medians(runner: Callable[..., Runner]) -> None:
    result = race([runner(10.0), runner(8.0)], Nothing(), 1)
    assert result.medians == pytest.approx([10.0, 8.0])
    assert result.ratio(1, 0)[0] == pytest.approx(0.8)
    assert result.ratio(0, 1)[0] == pytest.approx(1.25)
    assert result.control[0] == pytest.approx(1.0)
    assert result.stopped == "narrow enough"
    assert len(result.times) == 10


def test_noise_asks_for_more_rounds(runner: Callable[..., Runner]) -> None:
    calm = race([runner(10.0, 0.001), runner(8.0, 0.001, 1)], Nothing(), 1)
    noisy = race([runner(10.0, 0.05), runner(8.0, 0.05, 1)], Nothing(), 1)
    assert len(calm.times) < len(noisy.times)
    assert noisy.ratio(1, 0)[0] == pytest.approx(0.8, rel=0.03)


def test_time_is_up(runner: Callable[..., Runner]) -> None:
    result = race([runner(10.0, 0.3), runner(10.0, 0.3, 1)], Nothing(), 1, seconds=1.0)
    assert result.stopped == "time limit"
    assert result.times.sum() / 1e3 == pytest.approx(1.0, rel=0.1)


def test_rounds_are_up(runner: Callable[..., Runner]) -> None:
    result = race([runner(10.0, 0.3), runner(10.0, 0.3, 1)], Nothing(), 1, rounds=(5, 12))
    assert result.stopped == "most rounds"
    assert len(result.times) == 12


def test_quick_runs_are_repeated_within_a_sample(runner: Callable[..., Runner]) -> None:
    quick, slow = runner(0.01), runner(50.0)
    result = race([quick, slow], Nothing(), 1)
    assert result.repeats == (400, 1)
    assert result.medians == pytest.approx([0.01, 50.0])
    assert slow.runs == 2 + len(result.times)


def test_a_drift_that_all_share_cancels(runner: Callable[..., Runner]) -> None:
    """The machine becomes three times slower on the way; who runs within a round does so at the same speed."""
    clock = runner(1.0).clock
    times = [[10 + index, 8 + 0.8 * index, 10 + index] for index in range(20)]
    result = Race(np.asarray(times), (1, 1), "narrow enough")
    assert result.ratio(1, 0)[1] == pytest.approx((0.8, 0.8))
    assert clock.now == 0


def test_the_garbage_collector_comes_back(runner: Callable[..., Runner]) -> None:
    race([runner(10.0)], Nothing(), 1)
    assert gc.isenabled()


def test_one_hears_of_every_look_at_the_intervals(runner: Callable[..., Runner]) -> None:
    told: list[tuple[int, float]] = []
    race([runner(10.0, 0.2), runner(8.0, 0.2, 1)], Nothing(), 1, rounds=(10, 30), tell=lambda *a: told.append(a))
    assert [rounds for rounds, _ in told] == [10, 15, 20, 25, 30]
    assert all(width > 0.01 for _, width in told)


def test_what_is_out_is_not_timed_any_further(runner: Callable[..., Runner]) -> None:
    far, near = runner(50.0, 0.1, 2), runner(9.5, 0.1, 1)
    result = race([runner(10.0, 0.1), far, near], Nothing(), 1, rounds=(6, 40), out=lambda _: [1], tolerance=0.001)
    assert (len(result.times), far.runs, result.left) == (40, 2 + 6, [0, 2])
    assert result.medians[1] == pytest.approx(50, rel=0.2)
    assert result.ratio(1, 0)[0] == pytest.approx(5, rel=0.2)


def test_a_race_that_one_has_won_is_over(runner: Callable[..., Runner]) -> None:
    result = race([runner(10.0, 0.3), runner(50.0, 0.3, 1)], Nothing(), 1, rounds=(5, 40), out=lambda _: [1])
    assert (result.stopped, len(result.times)) == ("narrow enough", 5)


def test_what_is_out_leaves_the_others_no_more_time(runner: Callable[..., Runner]) -> None:
    contestants = [runner(10.0, 0.3, seed) for seed in range(4)]
    result = race(contestants, Nothing(), 1, seconds=4.0, rounds=(5, 1000), out=lambda _: [2, 3])
    assert result.stopped == "time limit"
    assert np.nansum(result.times) / 1e3 == pytest.approx(0.25 + (4 - 0.25) / 2, rel=0.1)


@pytest.mark.parametrize(
    ("ratio", "spread", "control", "verdict"),
    [
        (0.9, 0.01, 1.0, "faster"),
        (1.1, 0.01, 1.0, "slower"),
        (0.99, 0.08, 1.0, "inside the noise"),  # the interval holds 1
        (0.97, 0.001, 1.05, "inside the noise"),  # the control says that 5 % are nothing here
        (0.9, 0.001, 1.05, "faster"),
        (1.0, 0.0, 1.0, "inside the noise"),
    ],
)
def test_a_verdict_needs_more_than_noise(ratio: float, spread: float, control: float, verdict: str) -> None:
    random = np.random.default_rng(0)
    first = np.full(40, 10.0)
    times = np.stack([first, ratio * first * (1 + spread * random.standard_normal(40)), control * first], axis=1)
    found = measurement(Race(times, (1, 1), "narrow enough"))
    assert found.verdict == verdict
    assert found.is_faster == (verdict == "faster")


def test_noise_is_how_far_the_control_reaches() -> None:
    times = np.asarray([[10.0, 8.0, 9.7]] * 12)
    found = measurement(Race(times, (1, 1), "time limit"))
    assert found.noise == pytest.approx(0.03)
    assert found.control == pytest.approx(0.97)
    assert (found.a_ms, found.b_ms, found.ratio) == pytest.approx((8.0, 10.0, 0.8))
    assert (found.rounds, found.stopped) == (12, "time limit")


def test_a_measurement_is_plain_data() -> None:
    import json

    data: dict[str, Any] = measurement(Race(np.asarray([[10.0, 8.0, 10.0]] * 12), (1, 1), "time limit")).to_data()
    assert json.loads(json.dumps(data))["verdict"] == "faster"
    assert data["threads"] == 1
    assert data["processor"]


@pytest.mark.parametrize(
    ("threads", "device", "share", "clock"),
    [
        (1, "cpu", 1.0, "process_time"),
        (1, "cpu", 0.5, "process_time"),  # of a busy machine
        (1, "cpu", 1.5, "perf_counter"),  # with a second thread
        (1, "cpu", 0.0, "perf_counter"),  # done elsewhere
        (2, "cpu", 1.0, "perf_counter"),
        (1, "cuda", 1.0, "perf_counter"),
    ],
)
def test_one_thread_is_timed_by_its_processor(
    threads: int, device: str, share: float, clock: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(racing.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(racing.time, "process_time", lambda: share * now[0])

    def run() -> None:
        now[0] += 1.0

    found = racing._clock(Mock(run=run), Mock(device=device), threads)
    assert found is getattr(racing.time, clock)
