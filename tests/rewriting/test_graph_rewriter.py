"""The lowerings together: what engines and exporters are given."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from architectures import NAFNet
from mofa_compiler import Result, Roadmap, apply, load
from mofa_compiler.passes import ChannelsLast, LowerGates, LowerLayerNorm, LowerShuffle, MergeLinear
from tests.rewrites import scattered

SHAPE = (1, 3, 32, 32)


@pytest.fixture(scope="module")
def lowered() -> Result:
    torch.manual_seed(0)
    passes = [LowerLayerNorm(), MergeLinear(), LowerGates(), LowerShuffle(), ChannelsLast()]
    return apply(scattered(NAFNet(width=8, enc_blk_nums=(1,), dec_blk_nums=(1,))), Roadmap(passes), torch.rand(SHAPE))


def test_every_pass_keeps_its_promise(lowered: Result):
    assert all(verdict.holds and verdict.whole for verdict in lowered.verdicts)
    assert lowered.after.parameters < lowered.before.parameters


def test_no_split_and_no_norm_in_the_exported_graph(lowered: Result):
    x = torch.rand(SHAPE)
    model = copy.deepcopy(lowered.model).eval()
    exported = torch.export.export(model, (x,))
    operators = {str(node.target).removeprefix("aten.").partition(".")[0] for node in exported.graph.nodes}
    assert {"conv2d", "conv_transpose2d", "rsqrt"} <= operators
    assert not operators & {"split", "split_with_sizes", "chunk", "slice", "cat", "mean", "permute", "pixel_shuffle"}
    torch.testing.assert_close(exported.module()(x), model(x))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_onnx(lowered: Result):
    model = copy.deepcopy(lowered.model).eval()
    program = torch.onnx.export(model, (torch.rand(SHAPE),), dynamo=True, verbose=False)
    assert program is not None
    operators = {node.op_type for node in program.model.graph}
    assert {"Conv", "ConvTranspose"} <= operators
    assert not operators & {"Split", "Slice", "Concat", "DepthToSpace", "Transpose", "LayerNormalization"}


@pytest.mark.slow
def test_compiled_and_loaded_networks_compute_the_same(lowered: Result, tmp_path: Path):
    model = copy.deepcopy(lowered.model).eval()
    loaded = load(lowered.save(tmp_path / "bundle")).eval()
    compiled = torch.compile(copy.deepcopy(model), backend="eager")
    for size in (SHAPE, (2, 3, 37, 51)):
        x = torch.rand(size)
        with torch.no_grad():
            assert torch.equal(loaded(x), model(x))
            assert torch.equal(compiled(x), model(x))


def test_gradients_reach_every_parameter(lowered: Result):
    model = copy.deepcopy(lowered.model).train()
    model(torch.rand(SHAPE)).square().mean().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
