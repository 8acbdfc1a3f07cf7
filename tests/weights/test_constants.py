"""What is said to be constant is so on any input; and what is, is found."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from mofa_compiler.weights import constants
from tests.calibration.small import Between, conv
from tests.rewrites import network, scattered

CASES: dict[str, tuple[Callable[[Between, Tensor], Tensor], int]] = {
    "stopped": (lambda m, x: F.relu(m.a(x)), 4),
    "pooled": (lambda m, x: F.relu(m.a(x)).mean((2, 3), keepdim=True) + x[:, :1], 0),
    "enlarged": (lambda m, x: F.interpolate(F.relu(m.a(x)), scale_factor=2), 4),
    "beside": (lambda m, x: torch.cat([x, F.relu(m.a(x))], 1)[:, 6:], 4),
    "split": (lambda m, x: F.relu(m.a(x)).chunk(2, 1)[0], 4),
    "times zero": (lambda m, x: x * F.relu(m.a(x)), 4),
    "over zero": (lambda m, x: x / F.relu(m.a(x)), 0),
    "borders": (lambda m, x: m.b(torch.sigmoid(m.a(x))), 0),
    "depthwise": (lambda m, x: m.b(F.relu(m.a(x))), 4),
    "shuffled": (lambda m, x: F.pixel_shuffle(F.relu(m.a(x)), 2), 1),
}


@pytest.mark.parametrize("name", CASES)
def test_constants_are_constant_and_found(name: str) -> None:
    function, count = CASES[name]
    model = Between(function, a=conv(8, 8), b=conv(8, 8, 3, groups=8))
    model.last = nn.Identity()
    scattered(model)
    with torch.no_grad():
        model.a.weight[:4], model.a.bias[:4] = 0, -1
    program = network(model.double(), 1, 3, 12, 10).program
    facts = constants(program.graph, program.modules, program.tensor)
    end = next(iter(program.graph.nodes.__reversed__())).args[0]
    end = end.args[0] if end.op == "call_module" else end
    assert int((~facts[end].isnan()).sum() if end in facts else 0) == count
    values: dict[str, Tensor] = {}

    class Watching(fx.Interpreter):
        def run_node(self, n: fx.Node) -> object:
            values[n.name] = super().run_node(n)
            return values[n.name]

    with torch.no_grad():
        Watching(program.graph_module, graph=program.graph).run(torch.randn(2, 3, 12, 10).double())
    for node, fact in facts.items():
        known = ~fact.isnan()
        assert (values[node.name][:, known] - fact[known].view(-1, 1, 1)).abs().max() < 1e-12
