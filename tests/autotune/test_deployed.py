"""What networks are worth as an engine computes them in eight bits, and which layers stay in float for a bound."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mofa_compiler.analysis.anatomy import infer
from mofa_compiler.analysis.network import Network
from mofa_compiler.autotune.deployed import Deployment
from mofa_compiler.autotune.held_out import HeldOut
from mofa_compiler.base.precision import Precision
from mofa_compiler.calibration import Calibration
from mofa_compiler.frontend import capture
from mofa_compiler.result.quality import Bound
from mofa_compiler.runtime import engine
from tests.runtime.test_engines import runs_here

X = torch.rand(1, 3, 16, 16)


class Wide(nn.Module):
    """Three layers; between the first two one channel is so large that eight bits for all leave the others none."""

    def __init__(self, factor: float):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.last = (nn.Conv2d(*sides, 1) for sides in ((3, 8), (8, 8), (8, 3)))
        with torch.no_grad():
            self.first.weight[0] *= factor
            self.second.weight[:, 0] /= factor

    def forward(self, x: Tensor) -> Tensor:
        return x + self.last(torch.relu(self.second(self.first(x))))


def deployed(factor: float, name: str = "onnxruntime", precision: Precision = "int8") -> tuple[Network, Deployment]:
    program = capture(Wide(factor).eval(), X)
    network = Network(program, infer(program))
    judged = HeldOut(network, Calibration([torch.rand(4, 3, 16, 16) for _ in range(4)]), Bound("psnr", 30))
    chosen = engine(runs_here(name), precision)
    return network, Deployment(chosen, 1, network, judged, [X], lambda *_: None)


@pytest.mark.slow
def test_nothing_stays_in_float_where_nothing_has_to() -> None:
    network, deployment = deployed(1)
    found = deployment.settled(network, Bound("psnr", 30))
    assert found.holds and not found.floating
    assert 30 < found.quality.value < 70


@pytest.mark.slow
def test_what_loses_most_stays_in_float() -> None:
    network, deployment = deployed(300)
    assert not deployment.settled(network, Bound("psnr", 1000)).holds
    found = deployment.settled(network, Bound("psnr", 32))
    assert found.holds and found.quality.value > 32
    assert {*found.floating} <= {"first", "second"} and found.floating
    inputs = [torch.rand(1, 3, 16, 16)]
    with torch.no_grad():
        (y,), expected = found.engine.compile(Wide(300), inputs).outputs(), Wide(300)(*inputs)
    assert float((y - expected).square().mean()) < 10 ** (-3)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_has_nothing_to_choose(precision: Precision) -> None:
    network, deployment = deployed(1, "eager", precision)
    found = deployment.settled(network, Bound("psnr", 40))
    assert found.holds and not found.floating and found.engine.quantization is None


def test_half_of_a_bound_is_left_at_least() -> None:
    _, deployment = deployed(1, "eager", "bf16")
    assert deployment.left(Bound("psnr", 40)).limit == pytest.approx(40, abs=0.5)  # bfloat16 costs little of it
    assert deployment.left(Bound("psnr", 100)).limit == pytest.approx(100 + 3.01, abs=0.01)
