"""No step of a calibration is kept that is worse on inputs which it was not fitted to."""

from __future__ import annotations

import sys
from itertools import chain, repeat
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mofa_compiler import Roadmap, apply
from mofa_compiler.autotune.held_out import COUNT
from mofa_compiler.calibration import Calibration, calibrate
from mofa_compiler.calibration.batches import Batches
from mofa_compiler.data import CalibrationImages
from mofa_compiler.graph.call_spec import CallSpec
from mofa_compiler.passes import Unshare
from tests.calibration.noise2noise import WEIGHTS, trained
from tests.calibration.small import images


class Repeated(nn.Module):
    """A block that is called three times, each time on what it made itself."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)
        self.block = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        for _ in range(3):
            y = y + self.block(y)
        return x + self.head(y)  # type: ignore[no-any-return]


MODULE = sys.modules[calibrate.__module__]

SHARED = [pass_ for pass_ in Roadmap.load("mofa") if pass_.name != Unshare.name]
"""Preset `mofa`, in which a block that is called several times stays one"""


@pytest.mark.parametrize("tuning", range(14))
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.sample(10)
def test_any_number_of_steps_and_batches(tuning: int, count: int) -> None:
    torch.manual_seed(0)
    apply(Repeated().eval(), SHARED, torch.rand(1, 3, 8, 8), Calibration(images(count, 1, size=8), tuning=tuning))


def test_a_worse_step_is_not_kept_and_the_next_one_starts_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = chain([0.5, 0.4, 0.6, 0.7, 0.35, 0.3], repeat(0.5))  # then those on what was fitted to
    monkeypatch.setattr(MODULE, "_error", lambda *_: next(errors))
    torch.manual_seed(0)
    net, x = Repeated().eval(), images(4, 2, size=16)
    result = apply(net, SHARED, x[0], Calibration(x, tuning=2))
    options = result.diffs[-1].options
    assert options["kept"] == "tuned"
    assert options["not_kept"].startswith("fitted, fitted but for layers called several times:")
    assert options["held_out"] == 1
    assert "fitted" not in {edit.note.partition(":")[0] for edit in result.diffs[-1].edits}


@pytest.mark.parametrize("with_shared", [0.2, 0.4])
def test_layers_that_are_called_several_times_are_fitted_where_that_is_better(
    with_shared: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where either way is better than none."""
    errors = chain([0.6, 0.5, with_shared, 0.3], repeat(0.5))
    monkeypatch.setattr(MODULE, "_error", lambda *_: next(errors))
    torch.manual_seed(0)
    net, x = Repeated().eval(), images(4, 2, size=16)
    diff = apply(net, SHARED, x[0], Calibration(x, tuning=0)).diffs[-1]
    fitted = {edit.path.partition(".")[0] for edit in diff.edits if edit.note.startswith("fitted")}
    left = {skip.path.partition(".")[0] for skip in diff.skips if skip.code == "worse"}
    assert ("block" in fitted, "block" in left) == ((True, False) if with_shared < 0.3 else (False, True))


@pytest.mark.parametrize("error", [float("inf"), 0.5])
def test_nothing_is_kept_that_is_no_better_than_inheritance(error: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "_error", lambda *_: error)
    torch.manual_seed(0)
    net, x = Repeated().eval(), images(4, 2, size=16)
    result, free = apply(net, "mofa", x[0], Calibration(x, tuning=2)), apply(net, "mofa", x[0])
    assert result.diffs[-1].options["kept"] == "inherited"
    free_state = free.model.state_dict()
    assert all(torch.equal(tensor, free_state[key]) for key, tensor in result.model.state_dict().items())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_images_are_held_out_once_each(sizes: list[int]) -> None:
    batches = Batches(Path("unused"))
    for number, size in enumerate(sizes):
        batches.append(CallSpec((torch.full((size, 1, 2, 2), float(number)),)))
    fitting, held = batches.apart()
    if batches.images == 1:
        assert (fitting.images, held.images) == (1, 1)
        return
    assert held.images == max(1, batches.images // 8)
    assert fitting.images + held.images == batches.images
    order = [float(value) for part in (fitting, held) for call in part for value in call.args[0][:, 0, 0, 0]]
    assert order == [float(number) for number, size in enumerate(sizes) for _ in range(size)]


def test_one_image_is_seen_in_the_mirror() -> None:
    batches, x = Batches(Path("unused")), torch.rand(1, 3, 4, 4)
    batches.append(CallSpec((x, torch.tensor(2.0))))
    fitting, held = batches.apart()
    assert torch.equal(fitting[0].args[0], x)
    assert torch.equal(held[0].args[0], x.flip(-1))
    assert held[0].args[1] == 2


def test_batches_that_cannot_be_cut_are_held_out_whole() -> None:
    batches = Batches(Path("unused"))
    for _ in range(3):
        batches.append(CallSpec((torch.rand(4, 1, 2, 2), torch.rand(3))))
    fitting, held = batches.apart()
    assert (len(fitting), len(held)) == (2, 1)


@pytest.mark.slow
def test_a_denoiser_with_shared_blocks_is_calibrated_and_better_for_it() -> None:
    assert WEIGHTS.is_file()
    net, x = trained(), torch.cat(images(2, 2, size=32))
    result = apply(net, "mofa", x, Calibration([x], tuning=0))
    calibrated, free = result.model.eval(), apply(net, "mofa", x).model.eval()
    fresh = torch.cat(images(4, 2, size=32)[2:])
    with torch.no_grad():
        expected = net(fresh)
        errors = [float((model(fresh) - expected).norm() / expected.norm()) for model in (calibrated, free)]
    assert errors[0] < errors[1]


def test_a_result_is_judged_on_images_that_nothing_was_fitted_to() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Conv2d(a, b, 3, padding=1) for a, b in ((3, 8), (8, 8), (8, 3)))).eval()
    noisy = CalibrationImages("synthetic", channels=3, size=16, degradation="gaussian:25", crops=4)
    result = apply(model, "mofa", torch.rand(1, 3, 16, 16), Calibration(noisy, tuning=0))
    quality = result.quality
    assert quality is not None and quality.limit is None and quality.inputs == COUNT
    assert quality.degraded is not None and f"{quality.degraded:.2f}" in result.report["quality"]["sentence"]
    assert quality.said in repr(result)
    given = apply(model, "mofa", torch.rand(1, 3, 16, 16), Calibration(list(noisy), tuning=0))
    assert given.quality is None, "what it is given it fits to, but for an eighth"
