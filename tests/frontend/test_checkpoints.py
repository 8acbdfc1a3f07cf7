"""Checkpoints of a network's own: seen through where they compute what they are given, else refused with the cause."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mofa_compiler import capture
from mofa_compiler.frontend import GUARDS


class Plain(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: Any, count: int, *tensors: Tensor) -> Any:
        ctx.function, ctx.inputs = function, list(tensors[:count])
        ctx.save_for_backward(*tensors[:count])
        with torch.no_grad():
            return function(*ctx.inputs)


class Detached(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: Any, *tensors: Tensor) -> Any:
        inputs = [tensor.detach().requires_grad_() for tensor in tensors]
        with torch.enable_grad():
            ctx.output = function(*inputs)
        return ctx.output.detach()


class WithoutContext(torch.autograd.Function):
    @staticmethod
    def forward(function: Any, x: Tensor) -> Any:
        return function(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.function = inputs[0]


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: Any, x: Tensor) -> Any:
        return function(x) * 2


class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: Any, x: Tensor) -> Any:
        return function(function(x))


class Shifted(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: Any, x: Tensor) -> Any:
        return function(x + 1)


class Block(nn.Module):
    def __init__(self, call: Any):
        super().__init__()
        self.conv, self.call = nn.Conv2d(3, 3, 3, padding=1), call

    def inner(self, x: Tensor) -> Tensor:
        return x + self.conv(x).relu()

    def forward(self, x: Tensor) -> Any:
        return self.call(self, x)


CALLS = {
    "method": lambda block, x: Plain.apply(block.inner, 1, x, *block.parameters()),
    "module": lambda block, x: Plain.apply(block.conv, 1, x),
    "lambda": lambda block, x: Plain.apply(lambda y: block.inner(y) * 2, 1, x),
    "detached": lambda block, x: Detached.apply(block.inner, x),
    "without context": lambda block, x: WithoutContext.apply(block.inner, x),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_checkpoint_is_seen_through(name: str) -> None:
    net = nn.Sequential(Block(CALLS[name]), nn.Conv2d(3, 3, 1)).eval()
    program = capture(net, torch.rand(1, 3, 8, 8))
    assert not program.opaque
    assert "0.conv" in program.modules
    assert not [node for node in program.graph.nodes if node.target in ("detach", "requires_grad_", *GUARDS)]
    x = torch.rand(2, 3, 9, 10)
    assert torch.equal(program.graph_module(x), net(x))
    program.graph_module(x).sum().backward()
    assert program.modules["0.conv"].weight.grad is not None


@pytest.mark.parametrize(
    ("kind", "cause"),
    [(Doubled, "returns something else"), (Twice, "calls 2 times"), (Shifted, "calls on other values")],
)
def test_what_computes_something_else_is_opaque_with_its_cause(kind: Any, cause: str) -> None:
    net = nn.Sequential(Block(lambda block, x: kind.apply(block.inner, x)), nn.Conv2d(3, 3, 1)).eval()
    program = capture(net, torch.rand(1, 3, 8, 8))
    assert cause in program.opaque["0"]
    assert torch.equal(program.graph_module(x := torch.rand(1, 3, 8, 8)), net(x))
