"""Blocks tuned one after the other: each towards what the original has there, and kept where that helped."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from mofa_compiler import apply
from mofa_compiler.calibration import Calibration, block_tuning, calibrate
from mofa_compiler.calibration.block_tuning import blocks
from mofa_compiler.passes import SepConvToPConv
from tests.calibration.small import conv, images, output_errors
from tests.rewrites import network

X = images(4, 2, size=16)
MODULE = sys.modules[calibrate.__module__]


def wide() -> nn.Module:
    torch.manual_seed(0)
    body = [layer for _ in range(3) for layer in (conv(8, 8, 3), nn.ReLU())]
    return nn.Sequential(conv(3, 8, 3), nn.ReLU(), *body, conv(8, 3, 3)).eval()


@pytest.mark.parametrize(("far", "stages"), [(0.0, 1), (1e9, 0)])
def test_blocks_are_tuned_where_the_output_is_far_from_the_originals(
    far: float, stages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MODULE, "FAR", far)
    result = apply(wide(), [SepConvToPConv(kinds=("dense",))], X[0], Calibration(X, tuning=90))
    errors = output_errors(result.diffs[-1])
    assert list(errors).count("tuned block by block") == stages
    assert not stages or errors["tuned block by block"] < errors["fitted"]


def test_a_block_that_does_not_come_nearer_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "FAR", 0.0)
    monkeypatch.setattr(block_tuning, "LEARNING_RATE", 1e3)
    errors = output_errors(apply(wide(), [SepConvToPConv(kinds=("dense",))], X[0], Calibration(X, tuning=4)).diffs[-1])
    assert errors["tuned block by block"] == errors["fitted"]


def test_blocks_have_so_many_layers_and_end_where_the_original_has_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_tuning, "LAYERS", 2)
    program = network(wide(), 1, 3, 16, 16).program
    order = list(program.graph.nodes)
    found = list(blocks(program, order, {*order}))
    assert [block.paths for block in found] == [("0", "2"), ("4", "6"), ("8",)]
    assert [len(block.outputs) for block in found] == [1, 1, 1]
