"""Real architectures: captured as they are, their stages found, and rewritten by the preset for any U-Net."""

from __future__ import annotations

import copy
import warnings
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils import _pytree as pytree

from mofa_compiler import Program, apply, capture
from mofa_compiler.analysis.anatomy import Anatomy, infer
from mofa_compiler.base.errors import CaptureError
from mofa_compiler.frontend import CaptureWarning
from tests.raising import raising

from .checks import LargestAllocation, assert_captured, assert_rewritten, assert_same, attributes
from .local_pooling import LocalAvgPool2d
from .models import QUICK, ZOO, build
from .timm import DropPath

SMALL, WIDE, LARGE = (64, 64), (64, 96), (256, 384)


def mode_warning(name: str) -> AbstractContextManager[Any]:
    """Expect the warning about the other mode where it is due; anywhere else it would be an error."""
    return warnings.catch_warnings() if ZOO[name].follows_mode else pytest.warns(CaptureWarning)


def captured(name: str, model: nn.Module, size: tuple[int, int] = SMALL) -> Program:
    with mode_warning(name):
        return capture(model, ZOO[name].inputs(*size))


@pytest.mark.sample(*QUICK)
@pytest.mark.parametrize("name", ZOO)
def test_capture_equals_eager(name: str) -> None:
    model = build(name)
    held = attributes(model)
    program = captured(name, model)
    assert attributes(model) == held, "tracing left something behind"
    assert_captured(program, model, ZOO[name].inputs(*SMALL), ZOO[name].inputs(*WIDE, batch=2))


@pytest.mark.sample(*QUICK)
@pytest.mark.parametrize("name", [name for name, model in ZOO.items() if model.follows_mode])
def test_what_was_captured_in_eval_mode_trains_as_eager(name: str) -> None:
    model, inputs = build(name), ZOO[name].inputs(*SMALL, batch=2)
    program = captured(name, model)
    eager, graph = copy.deepcopy(model).train(), copy.deepcopy(program.graph_module).train()
    for module in eager.modules():
        if isinstance(module, DropPath):
            module.drop_prob = 0.0  # stochastic depth is left out of what is captured in eval mode
    assert_same(graph(*inputs), eager(*inputs))
    after = graph.state_dict()
    for key, tensor in eager.state_dict().items():
        assert torch.equal(after[key], tensor) or key.endswith("num_batches_tracked"), key


@pytest.mark.slow
def test_capture_by_keyword_with_a_number() -> None:
    model = build("diffusers-unet2d")
    with mode_warning("diffusers-unet2d"):
        program = capture(model, {"sample": torch.rand(1, 3, *SMALL), "timestep": 7})
    with torch.no_grad():
        for timestep in (7, 12):
            inputs = {"sample": torch.rand(2, 3, *WIDE), "timestep": timestep}
            assert_same(program.graph_module(**inputs), model(**inputs))


def table(found: Anatomy) -> dict[str, tuple[int | None, tuple[str, ...]]]:
    return {stage.name: (stage.level, stage.units) for stage in found.stages}


@pytest.mark.sample(*QUICK)
@pytest.mark.parametrize("name", [name for name, model in ZOO.items() if model.stages is not None])
def test_stages(name: str) -> None:
    zoo = ZOO[name]
    assert zoo.stages is not None
    found = infer(captured(name, zoo.build(), LARGE))
    assert list(table(found).items()) == list(zoo.stages.items())
    in_stages = {unit: stage for stage, (_, units) in zoo.stages.items() for unit in units}
    assert found.roles == in_stages | zoo.transitions
    assert tuple((skip.kind, skip.level) for skip in found.skips) == zoo.skips
    assert found.is_unet, found.reason


@pytest.mark.slow
def test_a_classifier_is_no_unet() -> None:
    name = "timm-mobilenetv2"
    found = infer(captured(name, build(name), LARGE))
    assert not found.is_unet
    assert found.reason == ZOO[name].reason
    assert found.skips == ()


@pytest.mark.slow
def test_passes_that_need_stages_refuse_a_classifier() -> None:
    name = "timm-mobilenetv2"
    with mode_warning(name):
        result = apply(build(name), "mofa", ZOO[name].inputs(*SMALL))
    depthwise, *widened = (diff for diff in result.diffs if diff.pass_name in ("sepconv-to-pconv", "widen-portion"))
    assert depthwise.rewritten
    for diff in widened:
        assert not diff.rewritten
        assert {skip.code for skip in diff.skips} == {"no-unet"}


def test_a_local_pool_is_the_mean_over_its_window() -> None:
    pool = LocalAvgPool2d()
    pool.window = (5, 4)
    x = torch.rand(2, 3, 12, 9)
    expected = F.pad(F.avg_pool2d(x, pool.window, stride=1), (1, 2, 2, 2), mode="replicate")
    torch.testing.assert_close(pool(x), expected)
    assert torch.equal(pool(x[..., :5, :4]), x[..., :5, :4].mean((2, 3), keepdim=True))


def test_a_size_that_decides_otherwise_is_an_error_until_captured_anew() -> None:
    model = build("nafnet-local")
    inputs = ZOO["nafnet-local"].inputs(24, 24)  # the windows of the local pools are larger: they pool over everything
    with pytest.raises(RuntimeError, match="captured for another input size"):
        captured("nafnet-local", model, SMALL).graph_module(*inputs)
    assert_captured(captured("nafnet-local", model, (24, 24)), model, inputs)


def test_a_size_that_forward_refuses_is_an_error() -> None:
    model = build("smp-linknet-resnet18")
    with pytest.raises(RuntimeError, match="captured for another input size"):
        captured("smp-linknet-resnet18", model).graph_module(torch.rand(1, 3, 80, 80))
    with raising(CaptureError, "untraceable", "80x80"):
        captured("smp-linknet-resnet18", model, (80, 80))


@pytest.mark.sample(*QUICK)
@pytest.mark.parametrize("name", ZOO)
def test_capture_allocates_no_activation(name: str) -> None:
    """A feature map of an image as large as this takes gigabytes; nothing larger than a weight may be made."""
    channels = ZOO[name].channels
    image = torch.empty(1, channels, 16384, 16384, device="meta")
    model = build(name)
    with mode_warning(name), LargestAllocation() as allocated:
        program = capture(model, (image, *ZOO[name].inputs(1, 1)[1:]), compare=False)  # which runs it, at a small size
    assert allocated.bytes <= max(tensor.nbytes for tensor in model.state_dict().values())
    (output,) = program.graph.find_nodes(op="output")
    assert pytree.tree_leaves(pytree.tree_map(lambda node: node.meta["val"], output.args))[0].device.type == "meta"


@pytest.mark.sample("unet")  # that is compiled and saved, too: seconds each
@pytest.mark.parametrize("name", ZOO)
def test_preset(name: str, tmp_path: Path) -> None:
    model = build(name)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with mode_warning(name):
        result = apply(model, "mofa", ZOO[name].inputs(*SMALL))
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert_rewritten(result, model, ZOO[name].inputs(*WIDE, batch=2), tmp_path / "bundle")
