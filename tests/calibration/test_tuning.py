"""Whole networks tuned: what did best on held-out inputs is kept, and nothing else is changed."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from mofa_compiler.calibration import tuning
from mofa_compiler.calibration.batches import Batches
from mofa_compiler.calibration.tuning import tune
from mofa_compiler.graph.call_spec import CallSpec
from tests.calibration.small import conv, distance, images, run


def batches(count: int, batch: int = 2) -> Batches:
    found = Batches(Path("unused"))
    for image in images(count, batch):
        found.append(CallSpec((image,)))
    return found


def pair(noise: float = 0.05) -> tuple[nn.Module, nn.Module]:
    """A network, and the same with disturbed kernels."""
    torch.manual_seed(0)
    original = nn.Sequential(conv(3, 8, 3), nn.ReLU(inplace=True), conv(8, 8, 3), nn.BatchNorm2d(8), conv(8, 3, 3))
    other = copy.deepcopy(original.eval())
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += noise * torch.randn_like(parameter)
    return original, other.train()


def tuned(original: nn.Module, other: nn.Module, steps: int, folder: Path) -> int:
    """How many steps were taken."""
    told: list[int] = []
    tell = lambda _, done, __: told.append(done)  # noqa: E731
    tune(original, other, [*other[2].parameters()], batches(4), batches(1, 1), folder, steps, tell)  # type: ignore[index]
    return len(told)


def test_the_output_comes_nearer_and_only_what_is_tuned_changes(tmp_path: Path) -> None:
    original, other = pair()
    before, inputs = copy.deepcopy(other), torch.cat(images(1, 1))
    assert tuned(original, other, 60, tmp_path) == 60
    assert all(module.training for module in other.modules())
    wanted = run(original, inputs)
    assert distance(run(other, inputs), wanted) < 0.8 * distance(run(before, inputs), wanted)
    changed = {key for key, tensor in other.state_dict().items() if not torch.equal(tensor, before.state_dict()[key])}
    assert changed == {"2.weight", "2.bias"}
    assert all(parameter.requires_grad and parameter.grad is None for parameter in other.parameters())


def test_steps_that_lead_away_end_early_and_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "TURNING_RATE", 10.0)
    monkeypatch.setattr(tuning, "LEARNING_RATE", 10.0)
    original, other = pair()
    before = copy.deepcopy(other.state_dict())
    assert tuned(original, other, 80, tmp_path) < 80
    assert all(torch.equal(tensor, before[key]) for key, tensor in other.state_dict().items())


@pytest.mark.parametrize("steps", [1, 2, 3, 9])
def test_few_steps(steps: int, tmp_path: Path) -> None:
    assert tuned(*pair(), steps, tmp_path) == steps


def test_batches_become_single_images() -> None:
    found = batches(2, 3).one_by_one()
    assert found.sizes == [1] * 6
    assert torch.equal(torch.cat([call.args[0] for call in found]), torch.cat(images(2, 3)))


@pytest.mark.parametrize(("size", "count"), [(128, 1), (130, 3)])
def test_small_images_take_one_thread(size: int, count: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        found = Batches(Path("unused"))
        found.append(CallSpec((torch.zeros(1, 1, size, size),)))
        for some in (found, *found.apart()):
            with some.threads():
                assert torch.get_num_threads() == count
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
