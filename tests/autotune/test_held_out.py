"""What a network is worth on inputs that were held out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mofa_compiler.analysis.anatomy import infer
from mofa_compiler.analysis.network import Network
from mofa_compiler.autotune.held_out import COUNT, HeldOut
from mofa_compiler.base.errors import CalibrationError
from mofa_compiler.calibration import Calibration
from mofa_compiler.data import CalibrationImages
from mofa_compiler.frontend import capture
from mofa_compiler.result.quality import Bound
from tests.raising import raising


class Averaging(nn.Module):
    """Blurs a little, which takes noise away, and adds what it is told to."""

    def __init__(self, change: Callable[[Tensor], Tensor] | None = None, channels: int = 3):
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        self.change = change
        nn.init.constant_(self.conv.weight, 0.0)
        with torch.no_grad():
            for index in range(channels):
                self.conv.weight[index, index % 3] = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv(x)
        return out if self.change is None else self.change(out)


def network(model: nn.Module) -> Network:
    program = capture(model.eval(), torch.rand(1, 3, 16, 16), compare=False)
    return Network(program, infer(program))


def held(model: nn.Module, batches: Any, bound: Bound | None = None) -> HeldOut:
    return HeldOut(network(model), Calibration(batches), bound)


def noisy() -> CalibrationImages:
    return CalibrationImages("synthetic", channels=3, size=16, degradation="gaussian:25", crops=4)


def test_clean_images_that_the_network_restores_give_a_loss() -> None:
    judged = held(Averaging(), noisy())
    assert judged.bound == Bound("loss", 0.15)
    same, worse = (judged.quality(Averaging(change)) for change in (None, lambda x: x + 0.2))
    assert same.value == 0 and same.holds and same.inputs == COUNT
    assert same.degraded < same.original == same.rewritten
    assert worse.value == pytest.approx(worse.original - worse.rewritten, abs=1e-9) and not worse.holds


def test_a_network_that_restores_nothing_is_compared_with_itself() -> None:
    assert held(Averaging(lambda x: x - 5), noisy()).bound == Bound("psnr", 45)


def test_without_a_degradation_the_distance_to_the_original_counts() -> None:
    judged = held(Averaging(), CalibrationImages("synthetic", channels=3, size=16, crops=4))
    assert judged.bound == Bound("psnr", 45)
    quality = judged.quality(Averaging(lambda x: x + 0.01))
    peak = 40 - quality.value
    assert -3 < peak < 3 and quality.degraded is None, "20 log10 of the range of the outputs, which is about 1"


def test_labels() -> None:
    judged = held(Averaging(channels=5), CalibrationImages("synthetic", channels=3, size=16, crops=4))
    assert judged.bound == Bound("agreement", 0.995)
    assert judged.quality(Averaging(lambda x: 3 * x - 7, channels=5)).value == 1
    shifted = judged.quality(Averaging(lambda x: x.roll(1, 1), channels=5))
    assert shifted.value < 0.5 and not shifted.holds


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (0.1, 0.7)])
def test_labels_of_one_channel_are_its_sign_or_its_half(scale: float, shift: float) -> None:
    """Logits on both sides of 0, or probabilities on both sides of 0.5."""
    bound = Bound("agreement", 0.9)
    images = [torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(i)) for i in range(9)]
    original = Averaging(lambda x: (scale * x + shift - 0.2).clamp(-3, 1), channels=1)
    judged = held(original, images, bound)
    flipped = Averaging(lambda x: 1 - (scale * x + shift - 0.2).clamp(-3, 1) if scale < 1 else -x, channels=1)
    assert judged.quality(original).value == 1
    assert judged.quality(flipped).value < 0.5


def test_what_is_not_finite_is_as_bad_as_can_be() -> None:
    judged = held(Averaging(), noisy())
    assert judged.errors(Averaging(lambda x: x / 0)) == [math.inf] * COUNT


class Placed(Averaging):
    """Adds what it knows of places, up to a size."""

    def __init__(self, largest: int):
        super().__init__()
        self.register_buffer("places", torch.zeros(largest, largest))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + self.get_buffer("places")[: x.shape[2], : x.shape[3]]


@pytest.mark.parametrize(
    ("side", "largest", "count"),
    [(None, 256, COUNT), (64, 256, COUNT), (200, 256, 21), pytest.param(300, 256, 16, marks=pytest.mark.slow)],
)
def test_what_is_held_out_is_as_large_as_the_network_will_run_on(side: int | None, largest: int, count: int) -> None:
    images = CalibrationImages("synthetic", channels=3, size=64, degradation="gaussian:25", crops=4)
    assert HeldOut(network(Placed(largest)), Calibration(images), None, side).quality(Placed(largest)).inputs == count
    assert HeldOut(network(Placed(70)), Calibration(images), None, side).quality(Placed(70)).inputs == COUNT


@pytest.mark.parametrize("count", [2, 9, 17])
def test_every_eighth_batch_is_held_out(count: int) -> None:
    batches = [torch.full((1, 3, 16, 16), float(index)) + torch.rand(1, 3, 16, 16) for index in range(count)]
    judged = held(Averaging(), batches)
    assert judged.quality(Averaging()).inputs == -(-count // 8)
    left = list(judged.calibration.batches)
    assert [float(batch.mean()) // 1 for batch in left] == [index for index in range(count) if index % 8]


def test_of_one_batch_some_examples_are_held_out() -> None:
    (left,) = held(Averaging(), torch.rand(10, 3, 16, 16)).calibration.batches
    assert left.shape == (8, 3, 16, 16)
    with raising(CalibrationError, "no-data"):
        held(Averaging(), [torch.rand(1, 3, 16, 16)])


def test_a_loss_needs_clean_images_of_the_outputs_shape() -> None:
    with raising(CalibrationError, "needs-option"):
        held(Averaging(), [torch.rand(2, 3, 16, 16)], Bound("loss", 0.1))
    with raising(CalibrationError, "wrong-output"):
        held(Averaging(channels=4), noisy(), Bound("loss", 0.1))
