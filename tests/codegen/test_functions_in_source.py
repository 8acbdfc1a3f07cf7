"""Emitted source that calls a network's own functions and classes, under names that would hide something."""

from __future__ import annotations

import importlib.util
import operator
import sys
from dataclasses import dataclass
from operator import mul
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from architectures import NAFNet
from mofa_compiler import apply, capture, load
from mofa_compiler.base.errors import BundleError
from mofa_compiler.codegen.source import emit
from tests.codegen.emitting import Residual, round_trip
from tests.raising import raising

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
