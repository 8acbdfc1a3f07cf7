"""Values that half precision does not hold, as calibration inputs show."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mofa_compiler.lint import lint
from tests.calibration.small import images


class Normed(nn.Module):
    def __init__(self, scale: float):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 48, 3, padding=1)
        self.last = nn.Conv2d(48, 3, 1)
        nn.init.constant_(self.conv.bias, scale)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.last(y / ((y * y).sum(1, keepdim=True) + 1e-6).sqrt())  # type: ignore[no-any-return]


@pytest.mark.parametrize(("scale", "codes"), [(100, ["MOFA408"]), (1, [])])
def test_sums_of_squares_that_overflow(scale: float, codes: list[str]) -> None:
    linted = lint(Normed(scale).eval(), images(1)[0], select=["MOFA408"], calibration=images(4))
    assert [finding.code for finding in linted.findings] == codes
    assert all("sum" in finding.signature and "6.55e+04" in finding.message for finding in linted.findings)
