"""A graph run node by node."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor, fx, nn

from mofa_compiler.graph.interpreter import Interpreter


class Net(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.relu(x)
        return x + y, x.matmul(y)


def test_returns_what_the_module_returns_and_keeps_no_value() -> None:
    module, inputs = fx.symbolic_trace(Net()), (torch.rand(3, 3), torch.rand(3, 3))
    threads = threading.enumerate()
    running = Interpreter(module)
    assert all(map(torch.equal, running.run(*inputs), module(*inputs)))
    assert {node.op for node in running.env} == {"output"}
    assert threading.enumerate() == threads


def test_errors_are_the_nodes_own() -> None:
    with pytest.raises(RuntimeError) as raised:
        Interpreter(fx.symbolic_trace(Net())).run(torch.rand(3, 3), torch.rand(2, 2))
    assert "While executing" not in str(raised.value)
