"""Forms of a partial convolution that run: as kernels, in place, exported, in whole networks."""

import copy
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from architectures import PMRID, NAFNet
from mofa_compiler import apply
from mofa_compiler.nn.partial_conv import PartialConv2d, PConv2d
from mofa_compiler.passes import LowerPConv
from mofa_compiler.rewriting.engine import rewrite
from tests.passes.pconv_blocks import FORMS, KINDS, Block, allowed, operators
from tests.rewrites import chain, network, output

KERNEL = """
import torch
from mofa_compiler.nn.kernels import fused_pconv
from mofa_compiler.nn.partial_conv import FusedPConv2d

torch.manual_seed(0)
for depthwise in (False, True):
    for given, options in (
        ((8, 2, 12, 3), dict(spatial_bias=True, relu=True)),
        ((24, 18, 5, (1, 3)), dict(dilation=(1, 2), pointwise_bias=False)),
    ):
        layer = FusedPConv2d(*given, depthwise=depthwise, **options)
        spatial, pointwise = layer.partial.conv, layer.pointwise
        x = torch.randn(2, layer.channels, 5, 13)
        with torch.no_grad():
            weights = spatial.weight, spatial.bias, pointwise.weight, pointwise.bias
            given = (x, *weights, [*spatial.dilation], layer.relu)
            torch.testing.assert_close(fused_pconv(*given), layer(x), rtol=1e-5, atol=1e-5)
            torch.library.opcheck(fused_pconv, given, test_utils=("test_schema", "test_faketensor"))
print("equal")
"""


@pytest.mark.slow
def test_the_kernel_computes_what_its_layer_does():
    pytest.importorskip("triton")
    run = subprocess.run(
        [sys.executable, "-c", KERNEL], env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True
    )
    assert run.stdout.strip() == "equal", run.stderr


# In place


def test_in_place_copies_nothing_and_spares_what_others_read():
    model = network(chain(nn.Conv2d(8, 8, 1), PConv2d(8, 2), nn.Conv2d(8, 8, 1)).eval())
    after, _ = rewrite(model, LowerPConv(form="in-place"))
    x = torch.rand(1, 8, 16, 16)
    kept = x.clone()
    with torch.no_grad(), torch.profiler.profile() as profile:
        after.program.graph_module.eval()(x)
    assert torch.equal(x, kept)
    assert not {"aten::cat", "aten::split"} & {event.key for event in profile.key_averages()}


def test_in_place_layers_train_and_export():
    after, _ = rewrite(
        network(chain(nn.Conv2d(8, 8, 1), nn.Sigmoid(), PConv2d(8, 2), nn.Conv2d(8, 8, 1))), LowerPConv(form="in-place")
    )
    module, x = copy.deepcopy(after.program.graph_module), torch.rand(1, 8, 16, 16)
    module.train()(x).square().mean().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
    with torch.no_grad():
        expected = module.eval()(x)
        assert not {"slice_scatter", "copy", "copy_"} & operators(module)
        assert torch.equal(torch.jit.trace(module, x)(x), expected)


# Exports


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("form", "kind"), [(form, kind) for form in LowerPConv.removes for kind in KINDS if allowed(form, kind, "plain")]
)
@pytest.mark.slow
def test_exports_have_none_of_what_a_form_replaces(form: Any, kind: type[PartialConv2d]):
    between = None if form == "merged" else nn.ReLU()
    before = network(Block(kind(8, 2), between=between, before=nn.ReLU()), 1, 3, 16, 16)
    assert operators(before.program.graph_module, 1, 3, 16, 16) >= {"split", "cat"}
    after, _ = rewrite(before, LowerPConv(form=form))
    module = after.program.graph_module.eval()
    assert not operators(module, 1, 3, 16, 16) & set(LowerPConv.removes[form])
    onnx = torch.onnx.export(module, (torch.rand(1, 3, 16, 16),), dynamo=True, verbose=False)
    assert onnx is not None
    banned = {"split": {"Split"}, "cat": {"Concat"}, "slice": {"Slice"}}
    assert not {node.op_type for node in onnx.model.graph} & set().union(
        *(banned[name] for name in LowerPConv.removes[form])
    )


# Whole networks


@pytest.fixture(scope="module", params=["pmrid", "nafnet"])
def rewritten(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    model = PMRID() if request.param == "pmrid" else NAFNet(width=8)
    return apply(model.eval(), "mofa", torch.rand(1, 3, 32, 32)).model


@pytest.mark.parametrize("form", [*FORMS, "auto", "split-cat"])
@pytest.mark.slow
def test_whole_networks_compute_the_same_and_train(rewritten: nn.Module, form: Any):
    before = network(rewritten.eval(), 1, 3, 32, 32)
    after, diff = rewrite(before, LowerPConv(form=form))
    assert diff.exact
    assert bool(diff.edits) == (form != "split-cat")
    x = torch.rand(1, 3, 48, 32)
    torch.testing.assert_close(output(after, x), output(before, x), rtol=1e-4, atol=1e-5)
    module = copy.deepcopy(after.program.graph_module).train()
    module(x).square().mean().backward()
    assert [name for name, p in module.named_parameters() if p.grad is None] == []
