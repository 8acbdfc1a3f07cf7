"""Values under masks: ordinary ones when a graph runs, and nothing to decide on while it is traced."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mofa_compiler import capture
from mofa_compiler.base.errors import CaptureError
from mofa_compiler.codegen.source import emit
from mofa_compiler.frontend import GUARDS
from tests.emitted import run
from tests.frontend.small import Computing


def into(x: Tensor, write: Any) -> Tensor:
    """A copy, written into under a mask."""
    y = x.clone()
    write(y, y > y.mean())
    return y


def assign(y: Any, mask: Tensor, value: Any) -> None:
    y[mask] = value


def add(y: Any, mask: Tensor, value: Any) -> None:
    y[mask] += value


def by_pixel(net: Any, x: Tensor) -> Tensor:
    y = x.permute(0, 2, 3, 1).clone()
    mask = x[:, 0] > 0
    y[mask] = net.linear(y[mask])
    return y.permute(0, 3, 1, 2)


FUNCTIONS = {
    "a number": lambda net, x: into(x, lambda y, mask: assign(y, mask, 1.0)),
    "values": lambda net, x: into(x, lambda y, mask: assign(y, mask, (x * 2)[mask])),
    "added": lambda net, x: into(x, lambda y, mask: add(y, mask, x[mask])),
    "the others": lambda net, x: into(x, lambda y, mask: assign(y, ~mask, -y[~mask])),
    "normalized": lambda net, x: into(x, lambda y, mask: assign(y, mask, (y[mask] - y[mask].mean()) / y[mask].std())),
    "places": lambda net, x: into(x, lambda y, mask: assign(y, torch.where(mask), 0.0)),
    "nonzero": lambda net, x: into(x, lambda y, mask: assign(y, mask.nonzero(as_tuple=True), 2.0)),
    "a channel": lambda net, x: into(x, lambda y, mask: assign(y[:, 1], mask[:, 0], x[:, 0][mask[:, 0]])),
    "an image": lambda net, x: into(x, lambda y, mask: add(y, (slice(None), slice(None), mask[0, 0]), 1.0)),
    "index_put": lambda net, x: torch.index_put(x, (x > 0,), x[x > 0] * 2),
    "masked_scatter": lambda net, x: x.masked_scatter(x > 0, x[x > 0] * 3),
    "mean": lambda net, x: x * x[x > 0].mean() * torch.masked_select(x, x > 0.1).mean(),
    "count": lambda net, x: x / x[x > 0].numel() / x[x > 0].shape[0],
    "pixels": by_pixel,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_under_a_mask(name: str) -> None:
    net = Computing(FUNCTIONS[name], linear=nn.Linear(3, 3)).eval()
    program = capture(net, torch.rand(1, 3, 8, 8))
    assert not [node for node in program.graph.nodes if node.target in GUARDS]
    built = run(emit(program, program.graph_module))
    built.load_state_dict(net.state_dict(), strict=False)
    for size in ((8, 8), (9, 12)):
        x = torch.rand(1, 3, *size)
        assert torch.equal(program.graph_module(x), net(x))
        assert torch.equal(built(x), net(x))


@pytest.mark.parametrize(
    "function",
    [
        lambda net, x: x if x[x > 0].numel() > 3 else -x,
        lambda net, x: x * len(x[x > 0]),
        lambda net, x: sum(x[x > 0]) + x,
        lambda net, x: x * [1.0, 2.0][min(torch.nonzero(x).shape[0], 1)],
    ],
)
def test_no_decision_on_how_many_they_are(function: Any) -> None:
    with pytest.raises(CaptureError, match=r"how many elements a mask selects.*test_selection\.py:\d+.*Control flow"):
        capture(Computing(function, linear=nn.Linear(3, 3)), torch.rand(1, 3, 8, 8))


def test_shapes_of_what_was_written_into_may_be_decided_on() -> None:
    def function(net: Any, x: Tensor) -> Tensor:
        y = into(x, lambda y, mask: assign(y, mask, y[mask] * 2))
        z = torch.index_put(y, (y > 0,), y[y > 0])
        return z if z.shape[2] > 3 else -z

    net = Computing(function, linear=nn.Linear(3, 3)).eval()
    graph = capture(net, torch.rand(1, 3, 8, 8)).graph_module
    assert torch.equal(graph(x := torch.rand(1, 3, 9, 9)), net(x))
