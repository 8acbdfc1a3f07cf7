"""Emitted source: it computes the same under the same keys, and reads as if somebody had written it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from architectures import PMRID, NAFNet, UNet
from mofa_compiler import apply, capture
from mofa_compiler.codegen.source import emit
from tests.codegen.emitting import Residual, body, round_trip
from tests.emitted import run


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
