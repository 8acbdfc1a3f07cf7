"""Generated nets that failed once, shrunk, under the name of what was wrong."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

import mofa_compiler
from architectures import UNet
from mofa_compiler import Roadmap, apply, capture
from mofa_compiler.passes import DropBlock
from tests.nets import GeneratedUNet, Plan

pytestmark = pytest.mark.filterwarnings("ignore::mofa_compiler.frontend.modes.CaptureWarning")


def test_a_resize_built_in_forward_is_traced() -> None:
    plan = Plan(up="module-size")
    model = GeneratedUNet(plan).eval()
    program = capture(model, plan.example(1, plan.sizes[0]))
    assert program.opaque == {}
    x = plan.example(2, plan.sizes[1])
    assert torch.equal(program.graph_module(*x), model(*x))


@pytest.mark.parametrize("outputs", ["dataclass", "named", "dict", "list"])
@pytest.mark.sample(2)
def test_outputs_of_every_kind_are_compared_and_saved(outputs: str, tmp_path: Path) -> None:
    plan = Plan(outputs=outputs)
    example = plan.example(1, plan.sizes[0])
    result = apply(GeneratedUNet(plan).eval(), "mofa", example)
    assert all(
        verdict.relative_error > 0
        for verdict, diff in zip(result.verdicts, result.diffs, strict=True)
        if diff.edits and not diff.exact
    )
    loaded = mofa_compiler.load(result.save(tmp_path / "bundle"))
    assert type(loaded(*example)).__name__ == type(result.model(*example)).__name__


def test_random_numbers_do_not_pass_for_an_output_error() -> None:
    plan = Plan(width=12, right="tokens", size="pad", odd_first=True, stochastic=True, training=True)
    result = apply(GeneratedUNet(plan), "mofa", plan.example(1, plan.sizes[0]))
    assert all(verdict.holds for verdict in result.verdicts)


def test_a_block_that_reads_the_mode_is_tried_on_random_fields() -> None:
    plan = Plan(stochastic=True, training=True)
    result = apply(GeneratedUNet(plan), Roadmap([DropBlock()]), plan.example(1, plan.sizes[0]))
    assert result.diffs[0].edits


def test_a_norm_that_follows_the_mode_is_no_obstacle() -> None:
    plan = Plan(norm="batch-act")
    result = apply(GeneratedUNet(plan).eval(), "mofa", plan.example(1, plan.sizes[0]))
    assert result.diffs[0].edits


def test_a_list_and_a_sequential_around_one_block_are_saved(tmp_path: Path) -> None:
    plan = Plan(skip="multiply", sharing="across", nesting="sequential")
    example = plan.example(1, plan.sizes[0])
    result = apply(GeneratedUNet(plan).eval(), "mofa", example)
    loaded = mofa_compiler.load(result.save(tmp_path / "bundle"))
    assert torch.equal(loaded(*example), result.model(*example))


def test_stochastic_depth_does_not_stay_random_in_silence() -> None:
    plan = Plan(stochastic=True, training=True)
    model, x = GeneratedUNet(plan), plan.example(1, plan.sizes[0])
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        module = capture(model, x).graph_module.eval()
    assert warned or torch.equal(module(*x), model.eval()(*x))


def test_a_resize_between_merged_layers_of_a_tiny_unet() -> None:
    model, x = UNet(width=4, depth=1, bilinear=True).eval(), torch.rand(1, 3, 32, 32)
    result = apply(model, "mofa", x)
    assert result.diffs[0].edits
    assert result.model.eval()(x).shape == model(x).shape
