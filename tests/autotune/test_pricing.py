"""A bound on the loss decides how much is rewritten."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import nn

from mofa_compiler import Result, Roadmap, apply
from mofa_compiler.autotune.candidates import Candidate
from mofa_compiler.autotune.held_out import COUNT
from mofa_compiler.autotune.knapsack import Price
from mofa_compiler.autotune.pricing import TRIES, TUNED, Prices
from mofa_compiler.base.errors import CalibrationError, RoadmapError
from mofa_compiler.calibration import Calibration
from mofa_compiler.data import CalibrationImages, Pair
from mofa_compiler.passes import SepConvToPConv
from mofa_compiler.result.quality import Bound
from tests.autotune.small import Tower, depthwise_taps, invent
from tests.raising import raising

X = torch.rand(1, 3, 32, 32)
ROADMAP = Roadmap([SepConvToPConv()])


class Wanted(CalibrationImages):
    """Images that the network restores to within -60 dB, so that whatever changes it is a loss."""

    network: Tower

    def held_out(self, count: int, side: int | None = None) -> tuple[CalibrationImages, list[Pair]]:
        rest, pairs = super().held_out(count, side)
        made = []
        for pair in pairs:
            with torch.no_grad():
                output = self.network(pair.input[None])[0]
            noise = 1e-3 * torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
            made.append(Pair(pair.input, output + noise, torch.tensor((-2.0, 2.0))))
        return rest, made


def wanted() -> Wanted:
    torch.manual_seed(0)
    images = Wanted("synthetic", channels=3, size=32, degradation="gaussian:25", crops=4)
    images.network = Tower().eval()
    return images


def bounded(bound: float, monkeypatch: pytest.MonkeyPatch) -> Result:
    asked = invent(monkeypatch, depthwise_taps)
    images = wanted()
    calibration = Calibration(images, order=False, fit=False, tuning=0)
    result = apply(images.network, ROADMAP.with_target("eager"), X, calibration, max_loss=bound)
    assert asked
    return result


def lost(result: Result) -> float:
    images, errors = wanted(), []
    result.model.eval()
    with torch.no_grad():
        for pair in images.held_out(COUNT)[1]:
            for network in (images.network, result.model):
                error = (network(pair.input[None])[0] - pair.target).clamp(-2, 2).square().mean() / 16
                errors.append(-10 * math.log10(float(error)))
    return sum(errors[::2]) / COUNT - sum(errors[1::2]) / COUNT


@pytest.mark.slow
def test_a_bound_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    everything, nothing = (bounded(bound, monkeypatch) for bound in (1000.0, 0.0))
    assert everything.decisions and nothing.decisions
    left = everything.rewritten.layers
    assert all(one.chosen != "original" or left.keys().isdisjoint(one.paths) for one in everything.decisions.layers)
    assert all(one.chosen == "original" for one in nothing.decisions.layers)
    assert lost(nothing) == pytest.approx(0, abs=1e-5)
    whole = lost(everything)
    assert everything.decisions.quality.value == pytest.approx(whole, abs=0.01)
    some = bounded(whole - 0.1, monkeypatch)
    chosen = [one for one in some.decisions.layers if one.chosen != "original"]
    assert chosen and 0 < lost(some) <= whole - 0.1
    quality = some.decisions.quality
    assert quality.holds and 1 <= quality.calibrations <= 4 and quality.inputs == COUNT
    worths = [one.worth for each in chosen for one in each.alternatives if one.name == each.chosen]
    assert None not in worths


def test_a_network_that_loses_too_much_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    invent(monkeypatch, depthwise_taps)
    torch.manual_seed(0)
    tower = Tower().eval()
    inputs = [torch.rand(2, 3, 32, 32) for _ in range(3)]
    calibration = Calibration(inputs, order=False, fit=False, tuning=0)
    result = apply(tower, ROADMAP.with_target("eager"), X, calibration, bound=Bound("psnr", 100))
    assert result.decisions.chosen == "original" and torch.equal(result.model.eval()(X), tower(X))


def test_a_block_that_loses_little_is_dropped_with_all_that_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three blocks the second adds next to nothing, and its layers are not rewritten besides."""
    invent(monkeypatch, lambda module: float(sum(isinstance(m, nn.Conv2d) for m in module.modules())))
    torch.manual_seed(0)
    tower = Tower().eval()
    for parameter in tower.blocks[1].wide.parameters():
        nn.init.constant_(parameter, 1e-6)
    inputs = [torch.rand(2, 3, 32, 32) for _ in range(3)]
    calibration = Calibration(inputs, tuning=0)
    result = apply(tower, ROADMAP.with_target("eager"), X, calibration, bound=Bound("psnr", 80))
    decided = {one.paths[0]: one.chosen for one in result.decisions.layers if one.layer == "x + f(x)"}
    assert decided == {"blocks.0.add": "original", "blocks.1.add_1": "drop-block", "blocks.2.add_2": "original"}
    assert [pass_.layers[0] for pass_ in result.roadmap if pass_.name == "drop-block"] == ["blocks.1.add_1"]
    assert not any(path.startswith("blocks.1") for path in result.rewritten.layers)


def test_bad_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    invent(monkeypatch, depthwise_taps)
    tower, target = Tower().eval(), ROADMAP.with_target("eager")
    with raising(CalibrationError, "needs-option"):
        apply(tower, target, X, [X, X], max_loss=0.5)
    with raising(CalibrationError, "bad-value", "max_loss"):
        apply(tower, target, X, [X], max_loss=-1.0)
    with raising(CalibrationError, "ambiguous"):
        apply(tower, target, X, [X, X], max_loss=0.5, bound="default")
    with raising(CalibrationError, "needs-option", "--calibrate"):
        apply(tower, target, X, bound="default")
    with raising(RoadmapError, "ambiguous", "keep_if"):
        apply(tower, ROADMAP.with_target("eager", keep_if="always"), X, [X, X], bound="default")
    with raising(RoadmapError, "needs-option", "with_target"):
        apply(tower, "mofa", X, max_loss=0.5)


class Fitted(Prices):
    """Prices of which it is known what networks come to: errors that add up, times what fitting leaves of them."""

    def __init__(self, groups: Sequence[list[Price]], left: float, tuned: float, tuning: int = 1):
        self.groups, self._left, self._tuned = list(groups), left, tuned
        self._held_out = Mock(calibration=Calibration([], tuning=tuning))
        made = lambda names: [(index, one) for index, one in enumerate(names) if one.passes]  # noqa: E731
        self._choice = Mock(made=made, groups=[Mock(paths=("one",), bypass=None) for _ in groups])
        self._network, self._forecast, self._until = Mock(), Mock(), math.inf
        self._together, self._gain, self.asked = {}, 1.0, list[bool]()

    @staticmethod
    def _approximate(passes: Any) -> Any:
        return list(passes)

    def _fitted(self, passes: Any, calibration: Calibration, tell: Any) -> Any:
        self.asked.append(calibration.tuning > 0)
        known = [{one.candidate: one.error for one in prices} for prices in self.groups]
        error = self._left * sum(known[index][one] for index, one in passes)
        return Mock(errors=(error * (self._tuned if calibration.tuning else 1.0),), calibrated=None)

    def _picked(self, chosen: Any, whole: Any, tried: int, bound: Bound) -> Any:
        return sum(one.saving for one in chosen), whole.errors, tried


def many(count: int = 40) -> list[list[Price]]:
    one = [Price(Candidate("original"), 0.0), Price(Candidate("other", (SepConvToPConv(),)), 1.0, (0.1,))]
    return [[*one] for _ in range(count)]


@pytest.mark.parametrize("left", [0.3, 1.0, 3.0])
@pytest.mark.parametrize(("tuning", "tuned"), [(0, 1.0), (1, 0.5), (1, 1.0)])
def test_a_bound_is_reached_and_kept_though_errors_add_up_to_something_else(
    left: float, tuning: int, tuned: float
) -> None:
    prices, bound = Fitted(many(), left, tuned, tuning), Bound("psnr", 0.5)
    saved, (error,), tried = prices.within(bound)
    assert error <= bound.allowed
    best = min(40, int(bound.allowed / (0.1 * left * (tuned if tuning else 1.0))))
    assert 0.6 * best <= saved <= best
    assert 0 < tried <= len(prices.asked) <= 2 * (TRIES + TUNED)
    assert prices.asked.count(True) <= (TUNED if tuning else 0)


def test_what_tuning_brought_once_is_counted_on_for_the_next_bound() -> None:
    prices = Fitted(many(), 1.0, 0.5)
    prices.within(Bound("psnr", 10))
    before = len(prices.asked)
    prices.within(Bound("psnr", 0.5))
    assert prices.asked[before:].count(True) == 1


def test_after_the_time_the_best_so_far_is_taken() -> None:
    prices = Fitted(many(), 0.1, 1.0)
    prices._until = 0.0
    saved, _, tried = prices.within(Bound("psnr", 0.5))
    assert saved > 0 and tried == 2


def test_a_price_is_remembered() -> None:
    kept: dict[str, Any] = {}
    trials = Mock(
        remembered=lambda key, _: kept.get(repr(key)), remember=lambda key, value: kept.update({repr(key): value})
    )
    prices = Fitted(many(1), 1.0, 1.0)
    prices._choice, prices._held_out = Mock(trials=trials), Mock(fingerprint="these", errors=lambda _, few: [0.1, 0.2])
    rehearsal = Mock()
    passes = (SepConvToPConv(),)
    assert prices._rehearsed(passes, rehearsal) == (0.1, 0.2) == prices._rehearsed(passes, rehearsal)
    assert rehearsal.fitted.call_count == 1
    prices._held_out = Mock(fingerprint="others", errors=lambda _, few: [0.3])
    assert prices._rehearsed(passes, rehearsal) == (0.3,)


@pytest.mark.parametrize(("bound", "chosen"), [(100.0, "decided"), (0.001, "original")])
def test_a_bound_holds_for_what_the_engine_computes(bound: float, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """bfloat16 alone costs more than the second one."""
    invent(monkeypatch, depthwise_taps)
    images = wanted()
    calibration = Calibration(images, order=False, fit=False, tuning=0)
    roadmap = ROADMAP.with_target("eager", precision="bf16")
    result = apply(images.network, roadmap, X, calibration, max_loss=bound)
    assert result.decisions is not None and result.decisions.quality is not None
    assert result.decisions.chosen == chosen
    assert result.decisions.quality.holds is (chosen == "decided")
    assert result.decisions.quality.value > 0.001
