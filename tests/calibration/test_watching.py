"""What calibration sees before anything is carried out: dead channels, in whatever order they are afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import mofa_compiler
from mofa_compiler import Result, apply
from mofa_compiler.calibration import Calibration
from mofa_compiler.calibration.watching import EXPOSURES, NOISES, variations
from mofa_compiler.graph.call_spec import CallSpec
from mofa_compiler.passes import EliminateDeadChannels, NarrowHidden
from tests.calibration.small import Between, conv, distance, images, run, trained_like

DEAD = (2, 5, 6, 11)


def block() -> nn.Module:
    """Of 16 hidden channels four never pass the activation on images in [0, 1], and would on brighter ones."""
    torch.manual_seed(3)
    model = trained_like(Between(lambda m, x: x + m.c(F.relu(m.a(x))), a=conv(8, 16), c=conv(16, 8)))
    with torch.no_grad():
        for layer in (model.first, model.a):
            layer.weight.abs_()
        model.a.bias.fill_(0.1)
        model.a.bias[list(DEAD)] = -60
        model.a.weight[list(DEAD)] *= 3
    return model.eval()


def hidden(result: Result) -> int:
    """How many are left."""
    return len(result.model.get_parameter("a.bias"))


def test_what_no_input_wakes_goes_and_what_was_seen_is_an_option() -> None:
    model, batches = block(), images(8)
    result = apply(model, [EliminateDeadChannels()], batches[0], Calibration(batches))
    assert [pass_.seen for pass_ in result.roadmap] == [("relu: 2, 5-6, 11",)]
    assert hidden(result) == 12
    assert distance(run(result.model, *images(3)[2:]), run(model, *images(3)[2:])) < 1e-6


def test_inputs_that_can_be_gone_through_once_are_enough() -> None:
    model, batches = block(), images(4)
    assert hidden(apply(model, [EliminateDeadChannels()], batches[0], iter(batches))) == 12


def test_brighter_inputs_are_tried_too() -> None:
    model = block()
    with torch.no_grad():
        reach = F.conv2d(model.first(torch.cat(images(8))), model.a.weight)[:, DEAD].amax((0, 2, 3))
        model.a.bias[list(DEAD)] = -1.5 * reach  # nothing passes, and twice as much light would
    result = apply(model, [EliminateDeadChannels()], images(8)[0], Calibration(images(8)))
    assert hidden(result) == 16


def test_variations_are_those_that_the_pass_names() -> None:
    x = torch.rand(2, 3, 8, 8)
    found = [call.args[0] for call in variations(CallSpec((x, 3)))]
    assert len(found) == 1 + len(EXPOSURES) + len(NOISES)
    assert all(torch.equal(one, x * factor) for one, factor in zip(found, (1, *EXPOSURES), strict=False))
    assert [round(float((one - x).std() / x.std()), 2) for one in found[-2:]] == pytest.approx(NOISES, abs=0.03)


def test_what_does_not_hold_on_what_is_held_out_is_not_done() -> None:
    model, batches = block(), images(8)
    batches[-1] = batches[-1] * 100
    with pytest.warns(UserWarning, match="eliminate-dead-channels"):
        result = apply(model, [EliminateDeadChannels()], batches[0], Calibration(batches, tuning=0))
    assert hidden(result) == 16


def test_channels_in_another_order_are_the_same_channels() -> None:
    model, batches = block(), images(8)
    result = apply(
        model, [EliminateDeadChannels(), NarrowHidden(keep=8)], batches[0], Calibration(batches, tuning=0, fit=False)
    )
    assert hidden(result) == 8
    dead = result.steps[0].network
    assert result.channel_orders
    assert distance(run(dead.program.graph_module, batches[0]), run(model, batches[0])) < 1e-6


def test_the_bundle_is_what_the_recipe_makes(tmp_path: Path) -> None:
    model, batches = block(), images(8)
    roadmap = [EliminateDeadChannels(), NarrowHidden(keep=8)]
    saved = apply(model, roadmap, batches[0], Calibration(batches, tuning=0)).save(tmp_path / "bundle")
    assert all(check.ok for check in mofa_compiler.verify(saved, model).checks)
