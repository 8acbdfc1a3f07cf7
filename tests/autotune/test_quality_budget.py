"""A bound on the loss decides how much is rewritten."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from mofa_compiler import Result, Roadmap, apply
from mofa_compiler.base.errors import CalibrationError, DataError
from mofa_compiler.calibration import Calibration
from mofa_compiler.data import CalibrationImages
from mofa_compiler.passes import SepConvToPConv
from tests.autotune.small import Tower, depthwise_taps, invent
from tests.raising import raising

X = torch.rand(1, 3, 32, 32)


class Wanted(CalibrationImages):
    """Images on which the network is perfect, so that whatever changes it is a loss."""

    network: Tower

    def held_out(self, count: int) -> tuple[CalibrationImages, list[tuple[torch.Tensor, torch.Tensor]]]:
        rest, pairs = super().held_out(count)
        with torch.no_grad():
            return rest, [(x, self.network(x[None])[0]) for x, _ in pairs]


def bounded(bound: float, monkeypatch: pytest.MonkeyPatch) -> Result:
    invent(monkeypatch, depthwise_taps)
    torch.manual_seed(0)
    images = Wanted("synthetic", channels=3, size=32, degradation="gaussian:25", crops=4)
    images.network = Tower().eval()
    calibration = Calibration(images, order=False, fit=False, tuning=0)
    return apply(images.network, Roadmap([SepConvToPConv()]).with_target("eager"), X, calibration, max_loss=bound)


def lost(result: Result) -> float:
    images = Wanted("synthetic", channels=3, size=32, degradation="gaussian:25", crops=4)
    images.network = Tower()
    images.network.load_state_dict(result.original.program.state())
    images.network.eval()
    with torch.no_grad():
        errors = [float((result.model.eval()(x[None])[0] - y).square().mean()) for x, y in images.held_out(8)[1]]
    return 120 - sum(-10 * math.log10(max(error, 1e-12)) for error in errors) / len(errors)


@pytest.mark.slow
def test_a_bound_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    everything, nothing = (bounded(bound, monkeypatch) for bound in (1000.0, 0.0))
    assert all(one.chosen != "original" for one in everything.decisions.layers)
    assert all(one.chosen == "original" for one in nothing.decisions.layers)
    assert lost(nothing) == 0
    whole = lost(everything)
    some = bounded(whole - 0.1, monkeypatch)
    assert len([one for one in some.decisions.layers if one.chosen != "original"]) > 0
    assert 0 < lost(some) <= whole - 0.1


def test_a_bound_knows_the_clean_images(monkeypatch: pytest.MonkeyPatch) -> None:
    invent(monkeypatch, depthwise_taps)
    roadmap = Roadmap([SepConvToPConv()]).with_target("eager")
    with raising(CalibrationError, "needs-option"):
        apply(Tower().eval(), roadmap, X, [X], max_loss=0.5)
    with raising(CalibrationError, "bad-value", "max_loss"):
        apply(Tower().eval(), roadmap, X, [X], max_loss=-1.0)


def test_what_is_held_out_is_no_calibration_input(tmp_path: Path) -> None:
    images = CalibrationImages("synthetic", channels=3, size=16, degradation="gaussian:25", crops=4)
    rest, pairs = images.held_out(3)
    given, target = pairs[0]
    assert given.shape == target.shape == (3, 16, 16)
    assert 0 < float((given - target).square().mean().sqrt()) < 0.2
    assert all(not torch.equal(given, image) for batch in images for image in batch)
    assert torch.equal(images.held_out(2)[1][1][0], pairs[1][0])
    assert all(torch.equal(one, two) for one, two in zip(rest, images, strict=True))
    with raising(DataError, "needs-option"):
        CalibrationImages("synthetic", channels=3, size=16).held_out(1)


def test_whole_images_are_held_out_of_a_folder(tmp_path: Path) -> None:
    for level in range(3):
        Image.new("L", (24, 24), 100 * level).save(tmp_path / f"{level}.png")
    images = CalibrationImages(tmp_path, channels=3, size=16, degradation="gaussian:1", crops=6)
    rest, pairs = images.held_out(4)
    assert {round(float(target.mean()) * 255) for _, target in pairs} == {0}
    assert {round(float(image.mean()) * 2.55) for batch in rest for image in batch} == {1, 2}
    assert len(images) == len(rest)
