from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from architectures import NAFNet
from mofa_compiler.passes import LowerGates
from mofa_compiler.rewriting.engine import rewrite
from tests.rewrites import Net, assert_lowers, assert_same_outputs, network, scattered

SPLITS = ("chunk", "split", "tensor_split")


def gate(x: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=1)
    return a * b


def called(rewritten: Any) -> set[str]:
    nodes = rewritten.program.graph.nodes
    return {str(getattr(node.target, "__name__", node.target)) for node in nodes if node.op.startswith("call")}


def test_simple_gate_through_a_depthwise_convolution():
    model = Net(
        lambda m, x: gate(m.depthwise(m.conv(x))),
        conv=nn.Conv2d(8, 12, 1),
        depthwise=nn.Conv2d(12, 12, 3, 2, 1, groups=12, bias=False, padding_mode="reflect"),
    )
    after = {
        "conv": None,
        "depthwise": None,
        **dict.fromkeys(("conv.0", "conv.1"), "Conv2d(8→6, k1, bias)"),
        **dict.fromkeys(("depthwise.0", "depthwise.1"), "Conv2d(6, k3, s2, depthwise)"),
    }
    rewritten, diff = assert_lowers(LowerGates(), model, after)
    assert called(rewritten) == {"conv.0", "conv.1", "depthwise.0", "depthwise.1", "mul"}
    assert [(edit.path, edit.parameters, edit.macs) for edit in diff.edits] == [("conv", 0, 0), ("depthwise", 0, 0)]
    assert diff.edits[0].after == "Conv2d(8→6, k1, bias) + Conv2d(8→6, k1, bias)"


@pytest.mark.parametrize(
    ("read", "channels"),
    [
        (lambda x: torch.mul(*torch.chunk(x, 2, -3)), 12),
        (lambda x: sum(part.sum(1, keepdim=True) for part in x.chunk(3, 1)), 8),  # 3, 3 and 2
        (lambda x: torch.mul(*x.split(6, dim=1)), 12),
        (lambda x: torch.mul(*(p.sum(1) for p in torch.split(x, [2, 10], 1))).unsqueeze(1), 12),
        (lambda x: torch.mul(*x.tensor_split(2, dim=1)), 12),
        (lambda x: x[:, :6] * x[:, 6:], 12),
        (lambda x: x[:, :6, :, :] * x[:, 6:, ...].sigmoid() + x[:, 6:], 12),
        (lambda x: F.glu(x, dim=1), 12),
        (nn.GLU(1), 12),
        (nn.GLU(dim=-3), 12),
    ],
)
@pytest.mark.sample(4)
def test_all_ways_to_read_apart(read: Any, channels: int):
    class Split(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.act, self.read = nn.Conv2d(8, channels, 3, padding=1), nn.GELU(), read

        def forward(self, x: Tensor) -> Tensor:
            return self.read(self.act(self.conv(x)))

    model = scattered(Split()).double()
    rewritten, diff = rewrite(network(model, 1, 8, 12, 10), LowerGates())
    assert not diff.skips and [edit.path for edit in diff.edits] == ["conv"]
    assert not called(rewritten) & {*SPLITS, "glu", "getitem", "read"}
    assert_same_outputs(model, rewritten, (1, 8, 12, 10))


def test_what_nobody_reads_is_not_computed():
    model = Net(lambda m, x: m.conv(x).relu()[:, 2:5], conv=nn.Conv2d(8, 12, 1))
    _, diff = assert_lowers(LowerGates(), model, {"conv": None, "conv.0": "Conv2d(8→3, k1, bias)"})
    assert (diff.edits[0].parameters, diff.edits[0].macs) == (-9 * 9, -9 * 8 * 120)


def test_nafnet_is_born_apart():
    model = scattered(NAFNet(width=8)).double()
    after, diff = rewrite(network(model, 1, 3, 32, 32), LowerGates())
    assert not diff.skips
    assert len(diff.edits) == 21
    assert not called(after) & set(SPLITS)
    assert_same_outputs(model, after, (1, 3, 32, 32))
    assert diff.before.macs == diff.after.macs and diff.before.parameters == diff.after.parameters


def test_in_place_activations_and_aliases():
    conv = nn.Conv2d(8, 12, 1)
    model = Net(lambda m, x: gate(F.relu_(m.act(m.conv(x)))), conv=conv, act=nn.ReLU(inplace=True), again=conv)
    rewritten, _ = assert_lowers(
        LowerGates(), model, {"conv": None, **dict.fromkeys(("conv.0", "conv.1"), "Conv2d(8→6, k1, bias)")}
    )
    assert set(rewritten.program.state()) == {
        f"{a}.{i}.{k}" for a in ("conv", "again") for i in (0, 1) for k in ("weight", "bias")
    }


def test_refusals():
    conv, hooked = nn.Conv2d(8, 12, 1), nn.Conv2d(8, 12, 1)
    hooked.register_forward_hook(lambda module, args, value: 2 * value)
    two = nn.Conv2d(12, 12, 3, padding=1, groups=2)
    none = "no-convolution"
    cases = [
        (Net(lambda m, x: gate(x)), none),
        (Net(lambda m, x: gate(m.act(m.conv(x))), conv=conv, act=nn.PReLU(12)), none),
        (Net(lambda m, x: gate(m.conv(x) + x.mean()), conv=conv), none),
        (Net(lambda m, x: gate(m.conv(x)) + gate(m.conv(2 * x)), conv=conv), "called-twice"),
        (Net(lambda m, x: gate(m.conv(x)), conv=hooked), "altered"),
        (
            Net(lambda m, x: gate(m.two(m.conv(x))), conv=conv, two=two),
            "grouped",
        ),
        (
            Net(lambda m, x: gate((y := m.conv(x)).relu()) + y.mean(), conv=conv),
            "read-elsewhere",
        ),
        (
            Net(lambda m, x: torch.mul(*(y := m.conv(x)).chunk(y.shape[1] // 6, 1)), conv=conv),
            "size-asked",
        ),
        (Net(lambda m, x: (y := m.conv(x))[:, :8] + y[:, 4:], conv=conv), "overlap"),
    ]
    for model, code in cases:
        whole = scattered(nn.Sequential(nn.Conv2d(8, 8, 1), nn.AvgPool2d(1), model)).double()
        _, diff = rewrite(network(whole, 1, 8, 12, 10), LowerGates())
        assert not diff.edits
        assert [skip.code for skip in diff.skips] == [code]


def test_other_dimensions_and_whole_reads_are_no_gates():
    for read in (
        lambda y: torch.mul(*y.chunk(2, dim=0)),
        lambda y: y[:, :, 1:] * 2,
        lambda y: y[:, :4] * y.mean(),
        lambda y: y[:, ::2] + y[:, 1::2],
        lambda y: y[:, 3],
    ):
        model = scattered(Net(lambda m, x, read=read: read(m.conv(x)), conv=nn.Conv2d(8, 8, 1))).double()
        _, diff = rewrite(network(model, 2, 8, 12, 10), LowerGates())
        assert not diff.edits and not diff.skips
