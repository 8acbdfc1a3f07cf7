"""Dead weight that calibration inputs show."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mofa_compiler.base.errors import LintError
from mofa_compiler.lint import lint
from mofa_compiler.lint.rules.dead_weight import DeadWeight
from tests.calibration.small import images
from tests.raising import raising


def model(bias: float) -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 1), nn.ReLU(), nn.Conv2d(16, 8, 1), nn.Conv2d(8, 3, 1)
    found = nn.Sequential(*layers)
    with torch.no_grad():
        found.get_parameter("1.bias")[4:10] = bias
    return found.eval()


def test_channels_that_no_input_wakes_are_found_with_what_they_cost() -> None:
    linted = lint(model(-50), images(1)[0], select=["MOFA206"], calibration=images(8))
    assert [(finding.code, finding.path) for finding in linted.findings] == [("MOFA206", "1"), ("MOFA206", "3")]
    saved = 6 * 9, 6 * 8 * 16 * 16
    assert all(f"−{number}" in linted.findings[0].message for number in (saved[0], f"{saved[1] / 1000:.1f} k"))
    assert linted.findings[0].fix is None


@pytest.mark.parametrize("calibration", [images(8), None])
def test_other_channels_are_not(calibration: list[torch.Tensor] | None) -> None:
    bias = 1.0 if calibration else -50
    assert not lint(
        model(bias), images(1)[0], select=["MOFA2"], ignore=["MOFA201", "MOFA202"], calibration=calibration
    ).findings


def test_it_needs_inputs() -> None:
    with raising(LintError, "needs-option", DeadWeight.code):
        lint(model(0), images(1)[0], select=[DeadWeight.code])
