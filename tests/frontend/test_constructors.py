"""Old constructors and scripted functions while a model is traced, and torch as it was afterwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mofa_compiler import capture
from mofa_compiler.base.errors import BundleError
from mofa_compiler.codegen.source import emit
from tests.emitted import run
from tests.raising import raising


class Net(nn.Module):
    def __init__(self, function: Any):
        super().__init__()
        self.conv, self.function = nn.Conv2d(3, 3, 1), function

    def forward(self, x: Tensor) -> Any:
        return self.function(self.conv(x))


@torch.jit.script
def swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


@torch.jit.script
def gated(x: Tensor, size: int) -> Tensor:
    return swish(x) * size if size > 4 else x


class SwishFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Any:
        return swish(x)


FUNCTIONS = {
    "sizes": lambda x: torch.Tensor(x.shape[0], 3, x.shape[2], x.shape[3]).fill_(2) * x,
    "a shape": lambda x: torch.Tensor(x.shape).fill_(2) * x,
    "a list": lambda x: torch.Tensor([x.shape[2], 2.0]).sum() * x,
    "a tensor": lambda x: torch.Tensor(x) * 2,
    "a constant": lambda x: torch.Tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1) * x,
    "a type": lambda x: torch.FloatTensor(x.shape[2], x.shape[3]).fill_(2) * x,
    "whole numbers": lambda x: torch.LongTensor([x.shape[2], x.shape[3]]).sum() * x,
    "a type's name": lambda x: x.type(torch.DoubleTensor) * torch.ones(3, 1, 1).type(torch.DoubleTensor),
    "questions": lambda x: x * 2 if isinstance(x, torch.FloatTensor) and isinstance(x, Tensor) else x,
    "methods of constants": lambda x: (
        x * torch.ones(1).expand(x.shape[2], x.shape[3]) * torch.ones(1).new_ones(x.shape[3])
    ),
    "functions of constants": lambda x: x + torch.roll(torch.arange(3.0), x.shape[2] // 2, 0).view(1, 3, 1, 1),
    "scripted": lambda x: swish(x),
    "scripted twice": lambda x: gated(x, x.shape[2]),
    "a function of scripted ones": lambda x: SwishFunction.apply(x),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_it_computes_what_eager_does(name: str) -> None:
    net = Net(FUNCTIONS[name]).eval()
    program = capture(net, torch.rand(1, 3, 8, 8))
    built = run(emit(program, program.graph_module))
    built.load_state_dict(net.state_dict())
    for size in ((8, 8), (9, 12)):
        x = torch.rand(1, 3, *size)
        assert torch.equal(program.graph_module(x), net(x))
        assert torch.equal(built(x), net(x))


def test_what_has_no_source_is_one_call_and_no_bundle() -> None:
    traced = torch.jit.trace(lambda x: x * 2, torch.rand(1, 3, 8, 8))
    del traced._torchdynamo_inline  # as one has none that is loaded from a file
    net = Net(lambda x: traced(x)).eval()
    program = capture(net, torch.rand(1, 3, 8, 8))
    assert torch.equal(program.graph_module(x := torch.rand(1, 3, 9, 12)), net(x))
    with raising(BundleError, "no-source", "torch.jit"):
        emit(program, program.graph_module)


def test_torch_is_as_it_was() -> None:
    before = torch.FloatTensor, Tensor.__new__, vars(torch.jit.ScriptFunction)["__call__"]
    capture(Net(swish), torch.rand(1, 3, 8, 8))
    assert (torch.FloatTensor, Tensor.__new__, vars(torch.jit.ScriptFunction)["__call__"]) == before
    assert "__new__" not in vars(Tensor)

    class Own(Tensor):
        pass

    assert torch.Tensor(2, 3).shape == (2, 3)
    assert type(Own(3)) is Own
    assert torch.equal(torch.Tensor([1, 2]), torch.tensor([1.0, 2.0]))
    assert isinstance(nn.Parameter(torch.rand(2)), nn.Parameter)
