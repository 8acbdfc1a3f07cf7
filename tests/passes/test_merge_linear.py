from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from architectures import NAFNet, UNet
from mofa_compiler import Roadmap, apply
from mofa_compiler.passes import LowerLayerNorm, MergeLinear
from mofa_compiler.rewriting.engine import rewrite
from tests.rewrites import Net, assert_lowers, assert_same_outputs, network, scattered


def row(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers)


class Scale(nn.Module):
    """What a parameter per channel does to an image."""

    def __init__(self, operation: Any, *shape: int):
        super().__init__()
        self.number, self.operation = nn.Parameter(torch.randn(shape or (1, 8, 1, 1))), operation

    def forward(self, x: Tensor) -> Tensor:
        return self.operation(x, self.number)


def test_batch_norm_behind():
    convs = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.Conv2d(8, 12, 3, 2, groups=2), nn.ConvTranspose2d(12, 8, 2, 2)
    norms = nn.BatchNorm2d(8), nn.BatchNorm2d(12), nn.BatchNorm2d(8, affine=False)
    model = row(*(layer for pair in zip(convs, norms, strict=True) for layer in (*pair, nn.ReLU())))
    after = {"0": "Conv2d(8→8, k3, bias)", "1": None, "4": None, "7": None}
    _, diff = assert_lowers(MergeLinear(), model, after)
    assert [(e.path, e.fate, e.parameters) for e in diff.edits[:2]] == [("1", "removed", -16), ("0", "compensated", 8)]
    assert diff.exact


def test_grouped_transposed_convolutions_take_scales_from_both_sides():
    model = row(Scale(torch.mul), nn.ConvTranspose2d(8, 6, 3, 2, 1, groups=2), nn.BatchNorm2d(6))
    rewritten, _ = assert_lowers(MergeLinear(), model, {"2": None})
    assert "0.number" not in rewritten.program.state()


@pytest.mark.parametrize("padding", ["reflect", "replicate", "circular"])
def test_batch_norm_before(padding: Any):
    model = row(nn.BatchNorm2d(8), nn.Conv2d(8, 12, 3, padding=1, padding_mode=padding, groups=4, bias=False))
    assert_lowers(MergeLinear(), model, {"0": None, "1": "Conv2d(8→12, k3, bias, groups=4)"})
    assert_lowers(MergeLinear(), row(nn.BatchNorm2d(8), nn.Conv2d(8, 12, 3, 2)), {"0": None})


def test_a_shift_does_not_pass_zeros():
    model = row(nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1))
    assert_lowers(MergeLinear(), model, {}, skips={"0": "shift"})
    model = row(nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding="same"))
    assert_lowers(MergeLinear(), model, {}, skips={"0": "shift"})
    assert_lowers(MergeLinear(), row(nn.BatchNorm2d(8), nn.ConvTranspose2d(8, 8, 2, 2)), {}, skips={"0": "shift"})
    assert_lowers(MergeLinear(), row(Scale(torch.mul), nn.Conv2d(8, 8, 3, padding=1)), {})


class Activated(nn.BatchNorm2d):
    """timm's BatchNormAct2d: a subclass that calls the function."""

    def forward(self, x: Tensor) -> Tensor:
        batch = self.training or self.running_mean is None
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, batch, 0.1, self.eps).relu()


def test_a_functional_batch_norm():
    model = row(nn.Conv2d(8, 6, 3, padding=1, bias=False), Activated(6))
    rewritten, diff = assert_lowers(MergeLinear(), model, {"0": "Conv2d(8→6, k3, bias)"})
    assert [(edit.path, edit.parameters) for edit in diff.edits] == [("1", -12), ("0", 6)]
    assert rewritten.program.state().keys() == {"0.weight", "0.bias"}
    _, diff = rewrite(network(model.train(), 1, 8, 9, 9), MergeLinear())
    assert [skip.code for skip in diff.skips] == ["training"]


def test_statistics_of_the_batch_stay():
    model = row(
        nn.Conv2d(8, 8, 1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 1),
        nn.BatchNorm2d(8, track_running_stats=False),
    )
    _, diff = rewrite(network(model.train()), MergeLinear())
    assert not diff.edits
    assert {skip.path: skip.code for skip in diff.skips} == {
        "1": "training",
        "4": "no-statistics",
    }


@pytest.mark.parametrize(
    "operation",
    [
        torch.mul,
        torch.add,
        torch.div,
        lambda x, c: c * x,
        lambda x, c: c - x,
        lambda x, c: x - c,
        lambda x, c: x.mul_(c),
        lambda x, c: x.add(c.view(1, -1, 1, 1)) * 0.5 + 2,
        lambda x, c: (x * c[:, None, None] if c.dim() == 1 else x * c) / 3,
    ],
)
@pytest.mark.parametrize("shape", [(1, 8, 1, 1), (8,)])
@pytest.mark.sample(6)
def test_arithmetic_per_channel(operation: Any, shape: tuple[int, ...]):
    if shape == (8,):
        operation = _with_channels_first(operation)
    scales = Scale(operation, *shape), Scale(operation, *shape)
    model = scattered(row(nn.Conv2d(8, 8, 3, padding=1), scales[0], nn.ReLU(), scales[1], nn.Conv2d(8, 4, 1))).double()
    rewritten, _ = rewrite(network(model, 1, 8, 9, 9), MergeLinear())
    assert_same_outputs(model, rewritten, (1, 8, 9, 9))
    left = [node.name for node in rewritten.program.graph.nodes if node.op in ("call_function", "call_method")]
    in_place = any(name.startswith("mul_") for name in left)  # what ReLU returned, which others might see
    assert in_place or not left, left
    assert ("1.number" in rewritten.program.state(), "3.number" in rewritten.program.state()) == (False, in_place)


def _with_channels_first(operation: Any) -> Any:
    return lambda x, c: operation(x, c.reshape(-1, 1, 1))


def test_a_number_for_every_column_is_no_scale():
    model = row(nn.Conv2d(8, 8, 1), Scale(torch.mul, 8), nn.Conv2d(8, 8, 1))
    rewritten, diff = rewrite(network(model, 1, 8, 8, 8), MergeLinear())
    assert not diff.edits and "1.number" in rewritten.program.state()


def test_the_last_scales_of_nafnet():
    model = scattered(NAFNet(width=8)).double()
    lowered, _ = rewrite(network(model, 1, 3, 32, 32), LowerLayerNorm())
    after, diff = rewrite(lowered, MergeLinear())
    assert not diff.skips
    assert not [key for key in after.program.state() if "beta" in key or "gamma" in key or "norm" in key]
    assert_same_outputs(model, after, (1, 3, 32, 32))
    _, alone = rewrite(network(model, 1, 3, 32, 32), MergeLinear())
    assert len(alone.edits) == 28  # beta and gamma of seven blocks, and the convolutions before them


def test_a_unet_loses_its_norms():
    model = scattered(UNet(width=4, depth=2)).double()
    after, diff = rewrite(network(model, 1, 3, 32, 32), MergeLinear())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in after.program.modules.values())
    assert not diff.skips
    assert_same_outputs(model, after, (1, 3, 32, 32))


@pytest.mark.parametrize("joined", [False, True])
def test_weights_in_single_precision_are_rounded_once_and_verified(joined: bool):
    pair = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 3, 1)
    model = scattered(row(*pair) if joined else UNet(width=4, depth=2))
    result = apply(model, Roadmap([MergeLinear()]), torch.rand(1, 3, 32, 32))
    (verdict,) = result.verdicts
    assert result.diffs[0].edits
    assert verdict.whole and verdict.holds
    assert 1e-12 < max(size.error for size in verdict.whole.sizes) < 1e-6
    assert "rounded" in verdict.whole.note


def test_values_that_others_read_stay():
    read_twice = Net(lambda m, x: m.norm(y := m.conv(x)) + y, conv=nn.Conv2d(8, 8, 1), norm=nn.BatchNorm2d(8))
    assert_lowers(MergeLinear(), read_twice, {}, skips={"norm": "read-elsewhere"})
    before = Net(lambda m, x: m.conv(y := m.norm(x)) + y, conv=nn.Conv2d(8, 8, 1), norm=nn.BatchNorm2d(8))
    assert_lowers(MergeLinear(), before, {}, skips={"norm": "read-elsewhere"})


def test_two_convolutions_behind_take_it_both():
    model = Net(
        lambda m, x: m.a(y := m.norm(x)) + m.b(y), norm=nn.BatchNorm2d(8), a=nn.Conv2d(8, 6, 1), b=nn.Conv2d(8, 6, 1)
    )
    _, diff = assert_lowers(MergeLinear(), model, {"norm": None})
    assert [edit.path for edit in diff.edits] == ["norm", "a", "b"]
    assert diff.edits[0].note == "folded into a, b"


def test_shared_layers_stay():
    conv = nn.Conv2d(8, 8, 1)
    model = Net(lambda m, x: m.norm(m.conv(m.conv(x).relu())), conv=conv, norm=nn.BatchNorm2d(8))
    assert_lowers(MergeLinear(), model, {}, skips={"norm": "called-twice"})
    model = Net(lambda m, x: m.norm(m.conv(m.norm(x).relu())), conv=conv, norm=nn.BatchNorm2d(8))
    assert_lowers(MergeLinear(), model, {}, skips={"norm": "called-twice"})
    other = nn.Conv2d(8, 8, 1)
    other.weight = conv.weight
    model = Net(lambda m, x: m.norm(m.b(m.a(x).relu())), a=conv, b=other, norm=nn.BatchNorm2d(8))
    assert_lowers(MergeLinear(), model, {}, skips={"norm": "tied"})


def test_weights_that_something_else_reads_or_writes_stay():
    model = Net(lambda m, x: m.norm(m.conv(x)) + m.conv.weight.mean(), conv=nn.Conv2d(8, 8, 1), norm=nn.BatchNorm2d(8))
    assert_lowers(MergeLinear(), model, {}, skips={"norm": "read-elsewhere"})

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(8, 8, 1)
            self.register_buffer("calls", torch.ones(1, 8, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            self.calls.add_(1)
            return self.conv(x) * self.calls

    _, diff = rewrite(network(Counting(), 1, 8, 9, 9), MergeLinear())
    assert not diff.edits


def test_hooks_stay():
    model = row(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8))
    model[0].register_forward_hook(lambda module, args, value: 2 * value)
    assert_lowers(MergeLinear(), model, {}, skips={"1": "altered"})


def test_what_is_changed_in_place_stays():
    def steps(m: Any, x: Tensor) -> Tensor:
        x = x.relu()
        y = m.norm(x)
        x.add_(1)
        return m.conv(y) + x

    model = Net(steps, norm=nn.BatchNorm2d(8), conv=nn.Conv2d(8, 8, 1))
    assert_lowers(MergeLinear(), model, {}, skips={"norm": "overwritten"})


def test_nothing_linear_beside_it():
    assert_lowers(MergeLinear(), row(nn.ReLU(), nn.BatchNorm2d(8), nn.ReLU()), {}, skips={"1": "no-neighbour"})


def behind(*layers: nn.Module) -> nn.Sequential:
    """Layers behind an input convolution, which is never merged into another one."""
    return row(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), *layers)


def test_pointwise_convolutions_become_one_where_that_is_cheaper():
    model = behind(nn.Conv2d(8, 16, 1), nn.Conv2d(16, 4, 1))
    _, diff = assert_lowers(MergeLinear(), model, {"2": None, "3": "Conv2d(8→4, k1, bias)"})
    assert [(edit.path, edit.fate) for edit in diff.edits] == [("3", "compensated"), ("2", "removed")]
    assert sum(edit.macs for edit in diff.edits) == (8 * 4 - 8 * 16 - 16 * 4) * 120
    assert_lowers(
        MergeLinear(), behind(nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)), {"2": None, "3": "Conv2d(8→8, k1, bias)"}
    )
    assert_lowers(MergeLinear(), behind(nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)), {}, skips={"3": "macs"})
    assert_lowers(MergeLinear(), row(nn.Conv2d(8, 16, 1), nn.Conv2d(16, 4, 1)), {}, skips={"1": "neighbour-held"})


def test_one_of_two_convolutions_may_be_spatial():
    one = nn.Conv2d(8, 12, 3, 2, padding=1, dilation=2, groups=2), nn.Conv2d(12, 4, 1, groups=4, bias=False)
    assert_lowers(MergeLinear(), behind(*one), {"2": None, "3": "Conv2d(8→4, k3, s2, d2, bias, groups=2)"})
    other = nn.Conv2d(8, 16, 1, bias=False), nn.Conv2d(16, 4, 3, padding=1)
    assert_lowers(MergeLinear(), behind(*other), {"2": None, "3": "Conv2d(8→4, k3, bias)"})
    biased = nn.Conv2d(8, 16, 1), nn.Conv2d(16, 4, 3, padding=1)  # its bias does not pass the zeros
    assert_lowers(MergeLinear(), behind(*biased), {})
    separable = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 4, 1)
    assert_lowers(MergeLinear(), behind(*separable), {})


def test_a_depthwise_1x1_convolution_is_a_scale():
    scale = nn.Conv2d(8, 8, 1, groups=8)
    assert_lowers(MergeLinear(), row(nn.Conv2d(8, 8, 3), nn.ReLU(), scale, nn.Conv2d(8, 4, 1)), {"2": None})


def test_frozen_weights_stay_frozen():
    model = row(nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8)).requires_grad_(False)
    rewritten, _ = assert_lowers(MergeLinear(), model, {"0": "Conv2d(8→8, k1, bias)", "1": None})
    assert not any(tensor.requires_grad for tensor in rewritten.program.state().values())
