"""Emitted source: the constructors of layers, what is no layer of torch's, buffers and constants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from mofa_compiler import apply, capture, load
from mofa_compiler.base.errors import BundleError
from mofa_compiler.codegen.source import emit
from tests.codegen.emitting import round_trip
from tests.raising import raising

LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "nn.Conv2d(4, 6, (3, 1), stride=2, padding=(1, 0), bias=False)": (
        nn.Conv2d(4, 6, (3, 1), 2, (1, 0), bias=False), ()),
    'nn.Conv2d(4, 4, 3, padding="same", dilation=2, groups=2, padding_mode="reflect")': (
        nn.Conv2d(4, 4, 3, padding="same", dilation=2, groups=2, padding_mode="reflect"), ()),
    "nn.ConvTranspose2d(4, 2, 3, stride=2, padding=1, output_padding=1)": (nn.ConvTranspose2d(4, 2, 3, 2, 1, 1), ()),
    "nn.BatchNorm2d(4, eps=0.001, momentum=None, affine=False)": (nn.BatchNorm2d(4, 1e-3, None, False), ()),
    "nn.InstanceNorm2d(4, affine=True)": (nn.InstanceNorm2d(4, affine=True), ()),
    "nn.GroupNorm(2, 4)": (nn.GroupNorm(2, 4), ()),
    "nn.LayerNorm((8, 12))": (nn.LayerNorm((8, 12)), ()),
    "nn.LayerNorm((8, 8), bias=False)": (nn.LayerNorm((8, 8), bias=False), (1, 4, 8, 8)),
    "nn.LayerNorm(12, elementwise_affine=False)": (nn.LayerNorm(12, elementwise_affine=False), ()),
    "nn.LeakyReLU(negative_slope=0.2, inplace=True)": (nn.LeakyReLU(0.2, True), ()),
    "nn.PReLU(num_parameters=4)": (nn.PReLU(4), ()),
    'nn.GELU(approximate="tanh")': (nn.GELU("tanh"), ()),
    "nn.MaxPool2d(2)": (nn.MaxPool2d(2), ()),
    "nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True)": (nn.MaxPool2d(3, 2, 1, ceil_mode=True), ()),
    "nn.AvgPool2d(2, count_include_pad=False)": (nn.AvgPool2d(2, count_include_pad=False), ()),
    "nn.AdaptiveAvgPool2d((1, None))": (nn.AdaptiveAvgPool2d((1, None)), ()),
    'nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)': (
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), ()),
    "nn.Upsample(size=(7, 9))": (nn.Upsample((7, 9)), ()),
    "nn.PixelShuffle(2)": (nn.PixelShuffle(2), ()),
    "nn.Linear(12, 5, bias=False)": (nn.Linear(12, 5, bias=False), ()),
    "nn.Dropout2d(p=0.1)": (nn.Dropout2d(0.1), ()),
    "nn.Softmax(dim=1)": (nn.Softmax(1), ()),
    "nn.ReflectionPad2d((1, 2, 1, 2))": (nn.ReflectionPad2d((1, 2, 1, 2)), ()),
    "nn.ReflectionPad2d(1)": (nn.ReflectionPad2d(1), ()),
    "nn.ZeroPad2d(1)": (nn.ZeroPad2d(1), ()),
    "nn.Flatten()": (nn.Flatten(), ()),
    "nn.Unflatten(1, (2, 2))": (nn.Unflatten(1, (2, 2)), ()),
    "nn.Identity()": (nn.Identity(), ()),
    "nn.LSTM(8, 3, num_layers=2, batch_first=True, bidirectional=True)": (
        nn.LSTM(8, 3, 2, batch_first=True, bidirectional=True), (2, 5, 8)),
    'nn.RNN(8, 3, nonlinearity="relu")': (nn.RNN(8, 3, nonlinearity="relu"), (2, 5, 8)),
    "nn.Conv2d(4, 4, 1).requires_grad_(False)": (nn.Conv2d(4, 4, 1).requires_grad_(False), ()),
}  # fmt: skip


@pytest.mark.parametrize("expected", LAYERS)
def test_constructors(expected: str) -> None:
    layer, shape = LAYERS[expected]

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Any:
            return self.layer(x)

    source, built = round_trip(Net(), torch.rand(shape or (2, 4, 8, 12)))
    assert f"self.layer = {expected}\n" in source
    frozen = [not parameter.requires_grad for parameter in built.parameters()]
    assert all(frozen) if "requires_grad_" in expected else not any(frozen)


def test_attention() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, bias=False, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            y, _ = self.attention(x, x, x, need_weights=False)
            return y

    source, _ = round_trip(Net(), torch.rand(2, 5, 8))
    assert "nn.MultiheadAttention(8, 2, bias=False, batch_first=True)" in source


def test_a_subclass_that_changes_nothing_is_its_base() -> None:
    class Conv1x1(nn.Conv2d):
        def __init__(self, channels: int):
            super().__init__(channels, channels, 1)

    source, _ = round_trip(nn.Sequential(Conv1x1(4), nn.ReLU()))
    assert "nn.Conv2d(4, 4, 1)" in source


def test_a_layer_of_ones_own_is_refused() -> None:
    class Frozen(nn.Conv2d):
        def train(self, mode: bool = True) -> Frozen:
            return super().train(False)

    program = capture(nn.Sequential(Frozen(4, 4, 1)).eval(), torch.rand(1, 4, 8, 8))
    with raising(BundleError, "no-source", "Frozen"):
        emit(program, program.graph_module)


def test_a_layer_with_a_forward_of_its_own_is_written_out() -> None:
    class Scaled(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 2

    source, _ = round_trip(nn.Sequential(Scaled(4, 4, 1), nn.ReLU()))
    assert "self.weight, self.bias" in source


def test_attributes_and_methods_of_ones_own_do_not_make_another_layer() -> None:
    class Named(nn.Conv2d):
        kind = "plain"

        def __init__(self, channels: int):
            super().__init__(channels, channels, 1)
            self.gain = 2.0

        def initialize(self) -> None:
            nn.init.zeros_(self.weight)

    source, _ = round_trip(nn.Sequential(Named(4), nn.ReLU()))
    assert "nn.Conv2d(4, 4, 1)" in source


def test_an_opaque_module_is_refused_with_its_cause() -> None:
    class Branch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 4 else -x

    program = capture(nn.Sequential(nn.Conv2d(4, 4, 1), Branch()), torch.rand(1, 4, 8, 8))
    with raising(BundleError, "no-source", "Branch"):
        emit(program, program.graph_module)


def test_hooks_are_refused() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 1))
    model[0].register_forward_hook(lambda module, args, output: output * 2)
    program = capture(model, torch.rand(1, 4, 8, 8))
    with raising(BundleError, "no-source", "hooks"):
        emit(program, program.graph_module)


def test_buffers() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.rand(4, 1, 1))
            self.register_buffer("index", torch.tensor([2, 0, 1, 3]))
            self.register_buffer("grid", torch.tensor([[1.0, 0.25], [float("inf"), 0]]), persistent=False)
            self.register_buffer("ones", torch.ones(4, 1000, dtype=torch.float64), persistent=False)
            self.register_buffer("unused", torch.ones(4, 1000), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            x = (x - self.mean)[:, self.index]
            return x.clamp(max=1).add(self.ones.sum()) + self.grid[0, 1]

    source, built = round_trip(Net())
    assert "unused" not in source
    assert set(built.state_dict()) == {"mean", "index"}


def test_constants_too_large_for_source_are_in_the_weights(tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, padding=1)
            self.register_buffer("index", torch.randperm(1024), persistent=False)
            self.table = nn.Parameter(torch.rand(1024))

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x) + self.table[self.index].view(32, 32) * torch.tensor([[0.5] * 31 + [1.0]] * 32)

    result = apply(Net().eval(), "mofa", torch.rand(1, 4, 32, 32))
    folder = result.save(tmp_path / "bundle")
    assert set(load_file(folder / "model.safetensors")) == {*result.model.state_dict(), "index"}
    x = torch.rand(1, 4, 32, 32)
    assert torch.equal(load(folder)(x), result.model(x))


def test_a_transient_filter_for_every_channel_is_written_once() -> None:
    class Blur(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, channels, 1)
            row = torch.tensor([1.0, 2.0, 1.0]) / 4
            self.register_buffer("kernel", (row[:, None] * row).expand(channels, 1, 3, 3), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(self.conv(x), self.kernel, stride=2, groups=self.kernel.shape[0])

    source, _ = round_trip(Blur(40))
    assert ".repeat(40, 1, 1, 1)" in source


def test_unused_modules_keep_their_keys() -> None:
    class Custom(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.rand(3))
            self.inner = nn.Linear(2, 2)

    class Leaf(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.rand(3))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1)
            self.auxiliary = Custom()
            self.leaf = Leaf()
            self.loss = nn.L1Loss()
            self.none, self.nothing = nn.ModuleList(), nn.ModuleDict()
            self.heads = nn.ModuleDict({"a-b": nn.Conv2d(4, 1, 1), "c": nn.Conv2d(4, 2, 1)})
            self.gains = nn.ParameterList([nn.Parameter(torch.rand(1)), nn.Parameter(torch.rand(1))])

        def forward(self, x: Tensor) -> Tensor:
            return self.heads["a-b"](self.conv(x)) * self.gains[1]

    source, built = round_trip(Net())
    assert 'self.heads["a-b"](' in source
    assert {"auxiliary.table", "auxiliary.inner.weight", "leaf.table", "heads.c.weight"} <= set(built.state_dict())
