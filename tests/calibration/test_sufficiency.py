"""Whether there were enough calibration inputs for what was fitted to them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mofa_compiler import apply
from mofa_compiler.calibration import Calibration
from mofa_compiler.calibration.sufficiency import few_pixels, too_few
from mofa_compiler.data import CalibrationImages
from mofa_compiler.data import calibration as data

STARVED, FED = few_pixels(8, 9), few_pixels(9, 9)


@pytest.mark.parametrize(
    ("fitted", "held_out", "notes", "is_told"),
    [
        (0.2, 0.25, [FED], False),
        (0.2, 0.4, [FED], True),
        (0.2, 0.25, [STARVED, FED, FED], True),
        (0.2, 0.25, [STARVED, *[FED] * 9], False),
        (1.0, 1.0, [], False),
    ],
)
def test_too_few(fitted: float, held_out: float, notes: list[str], is_told: bool) -> None:
    assert bool(too_few(fitted, held_out, notes)) is is_told


@pytest.mark.parametrize(("number", "side", "is_told"), [(2, 4, True), (32, 32, False)])
def test_a_calibration_says_so(number: int, side: int, is_told: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Conv2d(a, b, 3, padding=1) for a, b in ((3, 16), (16, 16), (16, 3)))).eval()
    inputs = [torch.rand(1, 3, side, side) for _ in range(number)]
    result = apply(model, "mofa", inputs[0], Calibration(inputs, tuning=0))
    (options,) = (step.diff.options for step in result.steps if step.pass_ is None)
    assert ("too_few" in options) is is_told


@pytest.mark.parametrize(("crops", "fitted"), [(None, 8), (2, 2)])
def test_synthetic_images_are_made_more_of(crops: int | None, fitted: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "CROPS", 2)
    monkeypatch.setattr(data, "MOST", 8)
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Conv2d(a, b, 3, padding=1) for a, b in ((3, 16), (16, 16), (16, 3)))).eval()
    images = CalibrationImages("synthetic", channels=3, size=4, crops=crops)
    result = apply(model, "mofa", torch.rand(1, 3, 16, 16), Calibration(images, tuning=0))
    (options,) = (step.diff.options for step in result.steps if step.pass_ is None)
    assert "too_few" in options and options["inputs"] == fitted
