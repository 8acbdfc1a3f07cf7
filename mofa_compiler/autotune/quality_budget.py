"""A bound on what a rewrite may cost: layers are rewritten, cheapest gain per dB first, until it is reached."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import fx

from ..base.errors import CalibrationError
from ..calibration import Calibration, calibrate
from ..data import CalibrationImages
from ..rewriting.pass_api import Phase
from .candidates import ORIGINAL, Candidate
from .lowering_search import after_each, carried_out
from .search import Choice

HELD_OUT = 8
"""Pairs that the loss is measured on"""

SMALLEST = 1e-4
"""dB: what costs less is free"""


@dataclass(frozen=True)
class Upgrade:
    """From one alternative of a group to one that is faster and costs more."""

    group: int
    candidate: Candidate
    saving: float
    """ms, over all layers of the group"""
    loss: float
    """dB, each change on its own"""


class Budget:
    """Picks alternatives under a bound.

    The loss is measured on images that are held out while this is decided, where there are several.

    Args:
        bound: dB of PSNR that the calibrated network may lose against the original, >= 0.
        calibration: on images whose clean version is known.
        tell: told before every step.

    Raises:
        CalibrationError: the calibration knows no clean images.
    """

    def __init__(self, bound: float, calibration: Calibration | None, tell: Callable[[str, int, int], None]):
        images = calibration.batches if calibration else None
        if not bound >= 0:
            raise CalibrationError(f"max_loss={bound}: must be a number of dB, at least 0", code="bad-value")
        if calibration is None or not isinstance(images, CalibrationImages) or images.degradation is None:
            raise CalibrationError(
                "max_loss is measured against clean images: calibrate on a folder of them, or on synthetic ones, with "
                "a degradation (--calibrate DIR --degrade gaussian:25; CalibrationImages(..., degradation=...))",
                code="needs-option",
            )
        self.bound, self.tell = bound, tell
        rest, self.pairs = images.held_out(HELD_OUT)
        self.calibration = replace(calibration, batches=rest)

    def __call__(self, choice: Choice) -> list[Candidate]:
        """The alternatives, one a group."""
        start = [next(iter(group.pieces)) for group in choice.groups]
        original = self._psnr(choice.network.program.graph_module)
        upgrades = list(self._upgrades(choice, start, original))

        def taken(count: int) -> list[Candidate]:
            picked = list(start)
            for upgrade in upgrades[:count]:
                picked[upgrade.group] = upgrade.candidate
            return picked

        fits, fails = 0, len(upgrades) + 1
        count = len(upgrades)  # everything first: often it is good enough
        while fails - fits > 1:
            self.tell(f"calibrating with {count} of {len(upgrades)} rewrites", fits, fails)
            loss = original - self._calibrated(choice, taken(count))
            fits, fails = (count, fails) if loss <= self.bound else (fits, count)
            count = (fits + fails) // 2
        return taken(fits)

    def _upgrades(self, choice: Choice, start: Sequence[Candidate], original: float) -> list[Upgrade]:
        """What makes groups faster step by step, the most ms per dB first."""
        found: list[Upgrade] = []
        for index, (group, measured) in enumerate(zip(choice.groups, choice.measured, strict=True)):
            self.tell(f"cost of {group.paths[0]}", index, len(choice.groups))
            times = {one.name: one for one in measured}
            slow = times[ORIGINAL].ms
            points = []
            for candidate in group.pieces:
                one = times[candidate.name]
                if slow is None or one.ms is None or one.interval is None or one.interval[1] >= 1:
                    continue
                picked = list(start)
                picked[index] = candidate
                passes = [p for p in choice.made(picked) if p.phase is not Phase.LOWER]
                loss = original - self._psnr(carried_out(choice.network, passes).program.graph_module)
                points.append(Upgrade(index, candidate, (slow - one.ms) * len(group.paths), max(loss, SMALLEST)))
            found += _hull(points)
        return sorted(found, key=lambda one: -one.saving / one.loss)

    def _calibrated(self, choice: Choice, picked: Sequence[Candidate]) -> float:
        passes = [p for p in choice.made(picked) if p.phase is not Phase.LOWER]
        if not passes:
            return self._psnr(choice.network.program.graph_module)
        networks = after_each(choice.network, passes)
        result = calibrate(self.calibration, networks, lambda other: after_each(other, passes)[1:], self.tell)
        return self._psnr(result.networks[-1].program.graph_module)

    def _psnr(self, module: fx.GraphModule) -> float:
        """Mean dB over the pairs, of values in [0, 1]."""
        was = module.training
        module.eval()
        with torch.no_grad():
            errors = [float((module(x[None])[0] - clean).square().mean()) for x, clean in self.pairs]
        module.train(was)
        return sum(-10 * math.log10(max(error, 1e-12)) for error in errors) / len(errors)


def _hull(points: Sequence[Upgrade]) -> list[Upgrade]:
    """The steps along the best alternatives of one group: each saves more than the one before, at ever worse rates."""
    steps: list[Upgrade] = []
    saving = loss = 0.0
    left = list(points)
    while left := [p for p in left if p.saving > saving]:
        best = max(left, key=lambda p: (p.saving - saving) / max(p.loss - loss, SMALLEST))
        steps.append(Upgrade(best.group, best.candidate, best.saving - saving, max(best.loss - loss, SMALLEST)))
        saving, loss = best.saving, max(loss, best.loss)
    return steps
