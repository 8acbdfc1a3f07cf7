"""Emitted source: it computes the same under the same keys, and reads as if somebody had written it."""

from __future__ import annotations

import importlib.util
import operator
import shutil
import subprocess
import sys
from dataclasses import dataclass
from operator import mul
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from architectures import PMRID, NAFNet, UNet
from mofa_compiler import apply, capture, load
from mofa_compiler.base.errors import BundleError
from mofa_compiler.codegen.source import emit
from tests.emitted import run
from tests.raising import raising


def round_trip(model: nn.Module, *inputs: Tensor) -> tuple[str, nn.Module]:
    """Source of `model` and what it builds, after checking keys and outputs."""
    inputs = inputs or (torch.rand(2, 4, 8, 12),)
    model.eval()
    program = capture(model, inputs)
    source = emit(program, program.graph_module)
    assert source == emit(program, program.graph_module), "emitting is not deterministic"
    built = run(source).eval()
    state = program.graph_module.state_dict()
    built.load_state_dict({key: tensor.clone() for key, tensor in state.items()}, assign=True)
    with torch.no_grad():
        expected, got = (network(*(x.clone() for x in inputs)) for network in (model, built))
    torch.testing.assert_close(got, expected, rtol=0, atol=0)
    assert set(built.state_dict()) == set(state)
    return source, built


def body(source: str, name: str) -> str:
    """The text of one class."""
    return next(part for part in source.split("\n\n\n") if part.startswith(f"class {name}("))


class Residual(nn.Module):
    def __init__(self, channels: int, inner: nn.Module | None = None):
        super().__init__()
        self.conv = inner or nn.Conv2d(channels, channels, 3, padding=1)
        self.scale = nn.Parameter(torch.rand(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) * self.scale


@pytest.mark.parametrize("model", [PMRID(), NAFNet(), UNet(width=8, depth=2), UNet(width=8, depth=2, bilinear=True)])
@pytest.mark.parametrize("roadmap", ["mofa", "paper-nafnet"])
@pytest.mark.sample(1)
def test_emitted_source_is_clean(model: nn.Module, roadmap: str, tmp_path: Path) -> None:
    result = apply(model, roadmap, torch.rand(1, 3, 64, 64))
    source = emit(result.rewritten.program, result.model, roadmap)
    name = type(model).__name__
    assert f'"""{name}, rewritten by mofa-compiler with the roadmap "{roadmap}".' in source
    assert f"class {name}(nn.Module):" in source
    assert source.endswith(f"Model = {name}\n")
    assert "getattr(" not in source
    assert "mofa_compiler" not in source
    assert set(run(source).state_dict()) == set(result.model.state_dict())
    ruff = shutil.which("ruff", path=str(Path(sys.executable).parent)) or shutil.which("ruff")
    if ruff:
        (tmp_path / "model.py").write_text(source)
        command = [ruff, "check", "--isolated", "--select", "F,E4,E7,E9", str(tmp_path / "model.py")]
        checked = subprocess.run(command, capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stdout


def test_the_identity_roadmap_gives_the_original_back() -> None:
    source, _ = round_trip(NAFNet(width=8), torch.rand(1, 3, 16, 24))
    block = body(source, "NAFBlock")
    assert "def __init__(self, channels: int):" in block
    assert "self.conv1 = nn.Conv2d(channels, 2 * channels, 1)" in block
    assert "self.beta = nn.Parameter(torch.empty(1, channels, 1, 1))" in block
    assert "x = inp + x * self.beta" in block
    assert "x1, x2 = x.chunk(2, dim=1)\n        return x1 * x2" in body(source, "SimpleGate")
    assert "return LayerNormFunction.apply(x, self.weight, self.bias, 1e-06)" in body(source, "LayerNorm2d")
    assert "def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:" in source
    assert "_, _, height, width = inp.shape" in body(source, "NAFNet")
    assert source.count("class NAFBlock") == 1


def test_blocks_that_differ_in_numbers_only_share_a_class() -> None:
    source, _ = round_trip(nn.Sequential(Residual(4), Residual(4), nn.Conv2d(4, 8, 1), Residual(8)))
    assert source.count("class Residual") == 1
    assert "Residual(4), Residual(4), nn.Conv2d(4, 8, 1), Residual(8)" in source


def test_blocks_that_differ_otherwise_do_not() -> None:
    source, _ = round_trip(nn.Sequential(Residual(4), Residual(4, nn.Conv2d(4, 4, 1))))
    assert "class Residual(nn.Module):" in source
    assert "class Residual_2(nn.Module):" in source


def test_many_equal_blocks_take_one_line() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(*[Residual(4) for _ in range(12)])

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x) + x

    source, built = round_trip(Net())
    assert "self.body = nn.Sequential(*(Residual() for _ in range(12)))" in source
    assert len({id(parameter) for parameter in built.parameters()}) == 36


def test_a_shared_module_called_twice_stays_shared() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = Residual(4)
            self.again = nn.ModuleList([nn.ReLU(), self.block])

        def forward(self, x: Tensor) -> Tensor:
            return self.again[1](self.block(x).relu())

    source, built = round_trip(Net())
    assert "self.again[1] = self.block" in source
    assert built.get_submodule("again.1") is built.get_submodule("block")
    assert len(list(built.parameters())) == 3


def test_a_container_called_twice_alike_is_one_class() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = Residual(4)

        def forward(self, x: Tensor) -> Tensor:
            return self.block(self.block(x) * 2)

    source, _ = round_trip(Net())
    assert source.count("self.block(") == 2


def test_a_container_called_in_two_ways_is_written_out() -> None:
    class Either(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1)
            self.weight = nn.Parameter(torch.rand(1))

        def forward(self, x: Tensor, twice: bool = False) -> Tensor:
            x = self.conv(x) * self.weight
            return self.conv(x) if twice else x

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.either = Either()

        def forward(self, x: Tensor) -> Tensor:
            return self.either(x) + self.either(x, twice=True)

    source, _ = round_trip(Net())
    assert source.count("self.either.conv(") == 3
    assert "def forward" not in body(source, "Either")


class Scaled(nn.Module):
    def __init__(self, conv: nn.Module, factor: float):
        super().__init__()
        self.conv, self.factor = conv, factor

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * self.factor


def test_two_containers_of_one_layer_are_not_one() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            conv = nn.Conv2d(4, 4, 1)
            self.once, self.more, self.alias = Scaled(conv, 1.0), Scaled(conv, 3.0), Scaled(conv, 3.0)

        def forward(self, x: Tensor) -> Tensor:
            return self.more(self.once(x))

    _, built = round_trip(Net())
    assert built.once.conv is built.more.conv is built.alias.conv
    assert built.once is not built.more


def test_a_list_is_not_the_sequential_with_the_same_children() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            shared = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
            self.left, self.right = nn.ModuleList([nn.Sequential(nn.Sequential(shared))]), nn.ModuleList([shared])

        def forward(self, x: Tensor) -> Tensor:
            return self.right[0](self.left[0](x))

    _, built = round_trip(Net())
    assert built.left[0][0][0] is built.right[0]


def test_tied_parameters_stay_tied_after_loading() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(4, 4, 1)
            self.second = nn.Conv2d(4, 4, 1)
            self.second.weight = self.first.weight
            self.scale = nn.Parameter(torch.rand(1))
            self.other = self.scale

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x)) * self.scale + self.other

    _, built = round_trip(Net())
    assert built.get_parameter("first.weight") is built.get_parameter("second.weight")
    assert built.get_parameter("scale") is built.get_parameter("other")


def test_functional_dropout_follows_the_mode() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(self.conv(x), 0.5, training=self.training)

    source, built = round_trip(Net())
    assert "training=self.training" in source
    x = torch.rand(1, 4, 8, 8)
    assert not torch.equal(built.train()(x), built.eval()(x))


def test_a_scattered_container_is_written_out() -> None:
    class Split(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(4, 4, 1)
            self.b = nn.Conv2d(4, 4, 1)
            self.gain = nn.Parameter(torch.rand(1))

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x) * self.gain)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.split = Split()
            self.other = nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.split(x) + self.other(x)

    model = Net().eval()
    program = capture(model, torch.rand(1, 4, 8, 8))
    nodes = {node.name: node for node in program.graph.nodes}
    nodes["split_a"].append(nodes["other"])  # in the middle of split's nodes
    source = emit(program, program.graph_module)
    assert "self.split.b(" in body(source, "Net")
    built = run(source).eval()
    built.load_state_dict(model.state_dict())
    x = torch.rand(1, 4, 8, 8)
    assert torch.equal(built(x), model(x))


def test_code_that_uses_a_module_from_elsewhere() -> None:
    class Inner(nn.Module):
        def __init__(self, borrowed: nn.Module):
            super().__init__()
            self.own = nn.Conv2d(4, 4, 1)
            self.borrowed = [borrowed]

        def forward(self, x: Tensor) -> Tensor:
            return self.own(self.borrowed[0](x))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shared = nn.Conv2d(4, 4, 3, padding=1)
            self.inner = Inner(self.shared)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(self.shared(x))

    round_trip(Net())


class Everything(nn.Module):
    """Most of what can be in an argument."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Any]:
        a = x[..., ::2, 1:-1]
        b = torch.where(x > 0.5, x, float("-inf")).clamp(min=-1.5)
        c = -((x - (y - 2)) ** 2) / (1 - (x / (y + 3)))
        d = (2 ** (-(x * 2))) ** 0.5 - -y
        e = x.new_zeros((2, 3), dtype=torch.float64, device=torch.device("cpu"))
        f = F.pad(x, (1, 1), value=float("nan")).nan_to_num(nan=7.0)
        g = torch.cat([x, y[:, None, 0].expand(-1, 4, y.size(2), y.shape[3])], dim=1)
        values, indices = x.flatten(2).max(2)
        h = x.clone()
        h.add_(y)
        h += 1
        h *= y
        i = self.conv(h).permute(0, 2, 3, 1).contiguous(memory_format=torch.contiguous_format)
        j = (x > 0.2) & (y < 0.7) | ~(x >= 0.1)
        k = x[:, [0, 2]].to(torch.float16).to(dtype=torch.float32)
        m = x.reshape(x.size(0), -1, x.shape[-1] * x.shape[2])
        n = torch.split(x, [1, 3], dim=1)[1]
        o = F.interpolate(x, size=x.shape[2:], mode="nearest")
        p = x.chunk(4, 1)
        return {
            "a": [a, b], "c": (c, d, e), "f": f, "g": g, "v": values, "i": (indices, i), "j": j, "k": k, "m": m,
            "n": n, "o": o, "p": p[0] + p[3], "q": x.mean((-1,), keepdim=True), "r": x.size(2) // 2 - 1,
        }  # fmt: skip


def test_arguments_of_every_kind() -> None:
    source, _ = round_trip(Everything(), torch.rand(2, 4, 8, 12), torch.rand(2, 4, 8, 12))
    assert "x[..., ::2, 1:-1]" in source
    assert "values, indices" not in source or "import operator" not in source


def test_in_place_order_is_kept() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            before = x * 2
            size = x.size(2) - 1
            x.add_(1)
            y = x * 3
            x += y
            return before + x + y * size

    round_trip(nn.Sequential(nn.Conv2d(4, 4, 1), Net()))


def test_tuples_between_containers() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 8, 1)

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            return self.conv(x).chunk(2, 1)

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

        def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
            return self.a(right) + left, self.b(left) * right

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pair, self.two = Pair(), Two()

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            left, right = self.pair(x)
            left, right = self.two(left, right)
            return left - right, right

    source, _ = round_trip(Net())
    assert "-> tuple[Tensor, Tensor]:" in source


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


CONSTANT = 3
SHIFT = (0.5, 1.5)


def helper(x: Tensor, gain: float) -> Tensor:
    return F.relu(x) * gain + SHIFT[0]


class Custom(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return helper(x, CONSTANT)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return gradients[0] * CONSTANT


class NeedsNumpy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Any:
        return x * float(np.sqrt(2))


class NeedsPython(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Any:
        return mul(x, operator.add(1, 1))


class Calls(nn.Module):
    def __init__(self, function: type[torch.autograd.Function]):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function.apply(self.conv(x))


def test_custom_functions_bring_their_helpers() -> None:
    source, built = round_trip(Calls(Custom))
    assert "CONSTANT = 3" in source
    assert "SHIFT = (0.5, 1.5)" in source
    assert source.count("def helper(") == 1
    built(torch.rand(1, 4, 8, 8)).sum().backward()
    assert built.get_parameter("conv.weight").grad is not None


def test_a_helper_that_needs_more_than_torch_is_refused() -> None:
    program = capture(Calls(NeedsNumpy), torch.rand(1, 4, 8, 8))
    with raising(BundleError, "no-source", "numpy"):
        emit(program, program.graph_module)


def test_what_comes_with_python_is_imported() -> None:
    source, _ = round_trip(Calls(NeedsPython))
    assert "import operator\nfrom operator import mul\n\nimport torch\nfrom torch import Tensor, nn\n" in source


class Pair(NamedTuple):
    out: Tensor
    features: Tensor


@dataclass
class Output:
    out: Tensor
    features: Tensor | None = None


@pytest.mark.parametrize("kind", [Pair, Output])
def test_the_class_of_an_output_is_taken_along(kind: type, tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x: Tensor) -> Any:
            x = self.conv(x)
            return kind(x.relu(), features=x)

    model, x = Net().eval(), torch.rand(1, 4, 8, 8)
    program = capture(model, x)
    source = emit(program, program.graph_module)
    (tmp_path / "model.py").write_text(source)
    spec = importlib.util.spec_from_file_location("model", tmp_path / "model.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["model"] = module
    try:
        spec.loader.exec_module(module)
        built = module.Model()
    finally:
        del sys.modules["model"]
    built.load_state_dict(model.state_dict())
    got, expected = built(x), model(x)
    assert type(got).__name__ == kind.__name__
    assert torch.equal(got.out, expected.out)
    assert torch.equal(got.features, expected.features)


@pytest.mark.parametrize("name", ["Sequential", "Model", "F", "torch", "Tensor"])
def test_names_that_would_hide_something(name: str) -> None:
    kind = type(name, (Residual,), {})
    _, built = round_trip(kind(4))
    assert isinstance(built, nn.Module)


@pytest.mark.slow
def test_many_alike_blocks_share_one_class() -> None:
    model = NAFNet(width=4, middle_blk_num=24, enc_blk_nums=(30, 30, 30), dec_blk_nums=(10, 10, 10)).eval()
    program = capture(model, torch.rand(1, 3, 16, 16))
    assert emit(program, program.graph_module).count("class NAFBlock") == 1


@torch.fx.wrap
def doubled(x: Tensor) -> Tensor:
    return x * 2


def test_wrapped_functions_and_constants() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.doubled = nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.doubled(x)
            z = doubled(y)
            z = (z + 1) * torch.tensor([0.5, 2.0, 1.0, 3.0]).view(-1, 1, 1)
            return z.relu().sigmoid() + y + z

    source, _ = round_trip(Net())
    assert "def doubled(x: Tensor) -> Tensor:" in source


class Registered(nn.Module):
    """A layer under two names, the second of which is called, as in nnU-Net."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv, self.act = nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()
        self.all_modules = nn.Sequential(self.conv, self.act)

    def forward(self, x):
        return self.all_modules(x)


def test_what_stands_for_a_layer_with_two_names_has_both(tmp_path):
    body = [nn.Sequential(Registered(3, 8), Registered(8, 8)), nn.MaxPool2d(2), Registered(8, 16), Registered(16, 16)]
    model = nn.Sequential(*body, nn.ConvTranspose2d(16, 8, 2, 2), Registered(8, 8), nn.Conv2d(8, 3, 3, padding=1))
    result = apply(model.eval(), "mofa", torch.rand(1, 3, 16, 16))
    loaded = load(result.save(tmp_path / "bundle"))
    x = torch.rand(1, 3, 16, 24)
    assert torch.equal(loaded(x), result.model(x))
    assert loaded[3].conv is loaded[3].all_modules[0]
