"""numpy's and Python's functions on sizes: one graph for every size, equal to eager, without a guard, and as source."""

from __future__ import annotations

import builtins
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mofa_compiler import capture
from mofa_compiler.codegen.source import emit
from mofa_compiler.frontend import GUARDS
from tests.emitted import run
from tests.frontend.small import Computing
from tests.nets import sized_by_helpers


def net(function: Any) -> Computing:
    """A convolution, and what a function of it and of its height and width computes."""
    return Computing(lambda _, x: function(x, *x.shape[-2:])).eval()


def padded(x: Tensor, h: int, w: int) -> Tensor:
    size = np.array([h, w])
    more = (np.ceil(size / 16) * 16 - size).astype(int)
    return F.pad(x, (0, int(more[1]), 0, int(more[0])))


FUNCTIONS = {
    "ceil": lambda x, h, w: x * np.ceil(h / 7),
    "rounding": lambda x, h, w: (
        x * np.floor(h / 7) * np.round(w / 7) * np.rint(h / 3) * np.trunc(h / 3) * np.fix(w / 3)
    ),
    "decimals": lambda x, h, w: x * np.round(h / 7, 1),
    "roots": lambda x, h, w: x * np.sqrt(h * w) * np.log2(h) * np.power(w, 0.5) * np.square(h) * np.sin(w) * np.exp(-h),
    "whole": lambda x, h, w: x * np.sign(h - w) * np.abs(h - w) * np.gcd(h, w) * np.lcm(h, w) * np.hypot(h, w),
    "extremes": lambda x, h, w: x * np.maximum(h, w) * np.minimum(h, w + 1) * np.max([h, w]) * np.clip(h, 8, 48),
    "shapes": lambda x, h, w: x * np.prod(x.shape[1:]) * np.sum(x.shape) * np.mean(x.shape) * np.min(x.shape[1:]),
    "lists": lambda x, h, w: x * np.prod([h, w]) * np.sum((h, w)),
    "scalars": lambda x, h, w: np.float64(2) * x * (np.float64(0.5) * h) * (np.int64(3) + w),
    "types": lambda x, h, w: (
        x * np.ceil(h / 7).astype(int) * (np.floor(w / 7) * 2).astype(np.int32) * np.sqrt(h).item()
    ),
    "pad": padded,
    "helpers": lambda x, h, w: sized_by_helpers.scaled(sized_by_helpers.padded(x, 8)),
    "array": lambda x, h, w: F.interpolate(x, size=tuple(np.array(x.shape[-2:]) // 2)),
    "reductions": lambda x, h, w: x * (a := np.asarray(x.shape)).prod() * a.max() * a.min() * a.sum() * a.mean(),
    "tensor": lambda x, h, w: x * torch.tensor(np.array([h, w])).sum(),
    "python": lambda x, h, w: x * max(h, w) * min(x.shape[2:]) * sum(divmod(h, 8)) * abs(h - w) * round(h / 7),
    "math": lambda x, h, w: x * math.ceil(h / 7) * math.prod([h, w]) * math.isqrt(h) * math.log2(w),
    "roll": lambda x, h, w: torch.roll(x, (h // 2, w // 2), (2, 3)),
    "spectrum": lambda x, h, w: torch.fft.ifft2(torch.fft.fft2(x, s=(h, w)), s=(h, w)).real,
    "spectrum of reals": lambda x, h, w: torch.fft.irfftn(torch.fft.rfftn(x, dim=(2, 3)), s=(h, w), dim=(2, 3)),
    "row": lambda x, h, w: torch.fft.irfft(torch.fft.rfft(x), n=w),
    "narrow": lambda x, h, w: torch.narrow(x, 2, 0, h // 2),
    "pool": lambda x, h, w: F.avg_pool2d(x, (h // 4, w // 4)),
    "unflatten": lambda x, h, w: torch.unflatten(x.flatten(2), 2, (h, w)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_size_stays_a_size(name: str) -> None:
    model = net(FUNCTIONS[name])
    program = capture(model, torch.rand(1, 3, 32, 32))
    assert not [node for node in program.graph.nodes if node.target in GUARDS]
    built = run(emit(program, program.graph_module))
    built.load_state_dict(model.state_dict())
    for size in ((32, 32), (40, 64), (61, 50)):
        x = torch.rand(1, 3, *size)
        assert torch.equal(program.graph_module(x), model(x))
        assert torch.equal(built(x), model(x))


@pytest.mark.parametrize("function", [lambda h: torch.from_numpy(np.linspace(0, 1, h)), lambda h: np.float32(h) + 0])
def test_what_python_cannot_say_is_fixed_by_a_guard(function: Any) -> None:
    model = net(lambda x, h, w: x * function(h))
    graph = capture(model, torch.rand(1, 3, 32, 32)).graph_module
    assert torch.equal(graph(x := torch.rand(1, 3, 32, 32)), model(x))
    with pytest.raises(RuntimeError, match="captured where a size was 32, which now is 16"):
        graph(torch.rand(1, 3, 16, 32))


def test_decisions_on_arrays_of_sizes_are_guarded() -> None:
    model = net(lambda x, h, w: x * 2 if np.array([h, w]).max() > 32 else x)
    graph = capture(model, torch.rand(1, 3, 32, 32)).graph_module
    assert torch.equal(graph(x := torch.rand(1, 3, 16, 32)), model(x))
    with pytest.raises(RuntimeError, match="captured for another input size"):
        graph(torch.rand(1, 3, 40, 32))


def test_names_are_put_back() -> None:
    before = [np.array, np.prod, np.max, builtins.max, builtins.min]
    with pytest.raises(Exception, match="not now"):
        capture(net(lambda x, h, w: (_ for _ in ()).throw(ValueError("not now"))), torch.rand(1, 3, 8, 8))
    assert [np.array, np.prod, np.max, builtins.max, builtins.min] == before


def test_a_number_has_no_attributes_that_it_would_not_have() -> None:
    model = net(lambda x, h, w: x * (2 if hasattr(h, "prod") or hasattr(x.shape, "prod") else 1))
    graph = capture(model, torch.rand(1, 3, 8, 8)).graph_module
    assert torch.equal(graph(x := torch.rand(1, 3, 8, 8)), model(x))
