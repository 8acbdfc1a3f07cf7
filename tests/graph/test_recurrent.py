"""Recurrent layers on meta tensors: what torch returns, and counts, by a single step."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from mofa_compiler import capture
from mofa_compiler.graph import recurrent
from mofa_compiler.graph.macs import node_macs
from mofa_compiler.graph.shape_propagation import meta_twin

ON_OFF = (False, True)
LAYERS: list[tuple[Any, dict[str, Any]]] = [
    (kind, {"batch_first": first, "bidirectional": both, "num_layers": layers, "bias": bias, **more})
    for kind, more in ((nn.GRU, {}), (nn.LSTM, {}), (nn.RNN, {"nonlinearity": "relu"}), (nn.LSTM, {"proj_size": 3}))
    for first, both, layers, bias in itertools.product(ON_OFF, ON_OFF, (1, 2), ON_OFF)
]


def described(value: Any) -> list[Any]:
    return [(leaf.shape, leaf.dtype, leaf.is_contiguous()) for leaf in pytree.tree_leaves(value)]


@pytest.mark.parametrize("single", ON_OFF)
@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.slow
def test_one_step_tells_what_all_steps_return_and_cost(single: bool) -> None:
    for kind, options in LAYERS:
        layer = kind(5, 7, **options).eval()
        x = torch.rand(6, 5) if single else torch.rand(4, 6, 5)
        twin = meta_twin(layer)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            step_by_step = twin(x.to("meta"))
        with torch.no_grad():
            expected, got = layer(x), recurrent.output(twin, (x.to("meta"),), {})
        assert described(got) == described(step_by_step) == described(expected), options
        assert recurrent.macs(layer, tuple(x.shape)) == counter.get_total_flops() // 2 > 0, options


def test_a_state_is_taken_and_one_that_does_not_fit_is_an_error() -> None:
    layer = meta_twin(nn.LSTM(5, 7, batch_first=True))
    x, state = torch.empty(4, 6, 5, device="meta"), torch.empty(1, 4, 7, device="meta")
    y, (hidden, cell) = recurrent.output(layer, (x,), {"hx": (state, state)})
    assert (y.shape, hidden.shape, cell.shape) == ((4, 6, 7), (1, 4, 7), (1, 4, 7))
    with pytest.raises(RuntimeError, match=r"Expected hidden\[0\] size"):
        recurrent.output(layer, (x, (state[:, :3], state)), {})
    with pytest.raises(RuntimeError, match="must be equal to input_size"):
        recurrent.output(layer, (x[..., :4],), {})


class Rows(nn.Module):
    """A recurrent layer along the rows of an image."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.conv, self.layer = nn.Conv2d(3, 4, 3, padding=1), layer

    def forward(self, x: Tensor) -> Any:
        y = self.conv(x).mean(2).transpose(1, 2)
        return self.layer(input=y)[0]


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM, nn.RNN])
def test_a_layer_in_a_network_computes_the_same_at_every_length(kind: Any) -> None:
    net = Rows(kind(4, 6, batch_first=True)).eval()
    program = capture(net, torch.rand(1, 3, 8, 16))
    x = torch.rand(2, 3, 8, 24)
    assert torch.equal(program.graph_module(x), net(x))
    (node,) = (node for node in program.graph.nodes if node.target == "layer")
    gates = net.layer.weight_ih_l0.shape[0] // 6
    assert node_macs(node, program) == 16 * gates * 6 * (4 + 6)


class Output(nn.GRU):
    def forward(self, x: Tensor) -> Any:  # type: ignore[override]
        return super().forward(x)


class Named(nn.LSTM):
    def initialize(self) -> None: ...


@pytest.mark.parametrize(("kind", "call"), [(Output, "gru"), (Named, "layer")])
def test_a_subclass_is_a_leaf_or_a_call_of_the_function(kind: Any, call: str) -> None:
    net = Rows(kind(4, 6, batch_first=True)).eval()
    net.forward = lambda x: net.layer(net.conv(x).mean(2).transpose(1, 2))[0]  # type: ignore[method-assign]
    program = capture(net, torch.rand(1, 3, 8, 16))
    x = torch.rand(2, 3, 8, 24)
    assert torch.equal(program.graph_module(x), net(x))
    (node,) = (node for node in program.graph.nodes if getattr(node.target, "__name__", node.target) == call)
    gates = net.layer.weight_ih_l0.shape[0] // 6
    assert node_macs(node, program) == 16 * gates * 6 * (4 + 6)
    assert pytree.tree_leaves(node.meta["val"])[0].shape == (1, 16, 6)


def test_a_cell_counts_its_one_step() -> None:
    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.cell = nn.Conv2d(3, 4, 1), nn.GRUCell(4, 6)

        def forward(self, x: Tensor) -> Any:
            return self.cell(self.conv(x).mean((2, 3)))

    program = capture(Cell().eval(), torch.rand(2, 3, 8, 8))
    (node,) = (node for node in program.graph.nodes if node.target == "cell")
    assert node_macs(node, program) == 2 * 3 * 6 * (4 + 6)
