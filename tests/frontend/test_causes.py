"""What stops the tracer is told as it is: control flow on values only where there is some."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mofa_compiler import capture
from mofa_compiler.base.errors import CaptureError

CONTROL_FLOW = "Control flow on the values of tensors"
TAKEN_OUT = "taken out of a tensor"
UNKNOWN_SHAPE = "torch does not know what shape this returns"
STAND_INS = "stand-ins for tensors and sizes"


class Net(nn.Module):
    def __init__(self, function: Any):
        super().__init__()
        self.conv, self.function = nn.Conv2d(3, 3, 1), function

    def forward(self, x: Tensor) -> Any:
        return self.function(self.conv(x))


def fails(x: Tensor) -> Tensor:
    raise ValueError("of its own")


@pytest.mark.parametrize(
    ("function", "cause"),
    [
        (lambda x: x if x.mean() > 0 else -x, CONTROL_FLOW),
        (lambda x: x * x.mean().item(), TAKEN_OUT),
        (lambda x: x * x.mean((0, 2, 3)).tolist()[0], TAKEN_OUT),
        (lambda x: x * float(x.mean()), TAKEN_OUT),
        (lambda x: sum(x for _ in range(int(x.mean()))), TAKEN_OUT),
        (lambda x: x if torch.equal(x, x) else -x, CONTROL_FLOW),
        (lambda x: x * torch.from_numpy(x.detach().numpy()), TAKEN_OUT),
        (lambda x: x * torch.unique(x).mean(), UNKNOWN_SHAPE),
        (lambda x: x * torch.bincount(x.long().flatten()).sum(), UNKNOWN_SHAPE),
        (lambda x: ",".join([x]), STAND_INS),
        (fails, "ValueError: of its own"),
        (lambda x: [x][3], "IndexError: list index out of range"),
        (lambda x: x.nonsense(), "a tensor has no attribute 'nonsense'"),
    ],
)
def test_the_cause_and_the_line(function: Any, cause: str) -> None:
    with pytest.raises(CaptureError) as caught:
        capture(Net(function), torch.rand(1, 3, 8, 8))
    text = str(caught.value)
    assert cause in text
    assert (CONTROL_FLOW in text) is (cause == CONTROL_FLOW)
    assert f"{__file__}:" in text
