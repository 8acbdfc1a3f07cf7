"""What hidden channels are like where there are no images: a layer's own weights, on random fields.

The fields are those that every closed form is for: pixels correlated as in a first-order autoregressive field, channels
not at all. Norms, activations and gates between the layers are computed as they are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from mofa_compiler import weights
from mofa_compiler.analysis.hidden import Hidden
from mofa_compiler.analysis.layers import kind_of
from mofa_compiler.rewriting import Rewiring

SIDE = 16
"""Of a field, in pixels"""

PIXELS_PER_CHANNEL = 32

AT_MOST = 4e9
"""MACs of a layer on all fields"""


def random_moments(wiring: Rewiring, hidden: Hidden) -> dict[fx.Node, weights.ChannelMoments]:
    """Second moments of what layers read of hidden channels, before it is pooled, by the node in the network before."""
    fields = Fields(wiring, _count(wiring, hidden), last=hidden.last)
    with torch.no_grad():
        for node in hidden.nodes:
            fields.compute(wiring.node_of[node])
        found = {reading.seen: fields.value(wiring.node_of[reading.seen]) for reading in hidden.readings}
    return {node: weights.ChannelMoments.of(value, last=hidden.last) for node, value in found.items()}


def _count(wiring: Rewiring, hidden: Hidden) -> int:
    """How many fields tell channels apart, if that does not take too long."""
    widest = max(len(classes) for classes in hidden.values.values())
    module = wiring.modules[hidden.path]
    assert isinstance(module.weight, Tensor)
    macs = module.weight.numel() * SIDE**2
    return max(1, min(PIXELS_PER_CHANNEL * widest // SIDE**2 + 4, int(AT_MOST // macs)))


class Fields:
    """Values of nodes on `count` fields; what is outside of the hidden channels is random itself."""

    def __init__(self, wiring: Rewiring, count: int, *, last: bool):
        self.wiring, self.count, self.last = wiring, count, last
        self.known: dict[fx.Node, Any] = {}
        self.generator = torch.Generator().manual_seed(0)
        self.device = wiring.network.program.device
        distances = (torch.arange(SIDE)[:, None] - torch.arange(SIDE)).abs().double()
        self.rows = torch.linalg.cholesky(weights.CORRELATION**distances)

    def value(self, argument: Any) -> Any:
        """Of an argument, wherever it comes from."""
        if not isinstance(argument, fx.Node):
            return argument
        if argument not in self.known:
            self.known[argument] = self._outside(argument)
        return self.known[argument]

    def compute(self, node: fx.Node) -> None:
        """Run a node on the values of what it reads."""
        args, kwargs = fx.map_arg((node.args, node.kwargs), self.value)
        if node.op == "call_module":
            result = self.wiring.exactly(str(node.target)).eval()(*args, **kwargs)
        elif node.op == "call_method":
            result = getattr(args[0], str(node.target))(*args[1:], **kwargs)
        elif node.op == "get_attr":
            result = self.wiring.exactly(str(node.target))
        else:
            assert callable(node.target)
            result = node.target(*args, **kwargs)
        self.known[node] = result

    def _outside(self, node: fx.Node) -> Any:
        value = node.meta["val"]
        if node.op == "get_attr":
            return self.wiring.exactly(str(node.target))
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        field = self._field(value.shape)
        source = node.args[0] if node.op.startswith("call") and node.args else None
        if not isinstance(source, fx.Node) or not isinstance(source.meta.get("val"), Tensor):
            return field
        if source.meta["val"].shape != value.shape:
            return field
        kind = kind_of(node, self.wiring.modules)
        module = self.wiring.module(node)
        if isinstance(module, nn.BatchNorm2d) and module.affine and not self.last:
            exact = self.wiring.exactly(str(node.target))
            return field * exact.weight.view(1, -1, 1, 1).abs() + exact.bias.view(1, -1, 1, 1)
        if kind in ("activation", "identity"):
            self.compute(node)
            return self.known[node]
        if kind == "norm" or hasattr(node.target, "autograd_function"):
            self.known.setdefault(source, self._field(value.shape))
            self.compute(node)
            return self.known[node]
        return field

    def _field(self, shape: torch.Size) -> Tensor:
        """Of mean 0 and variance 1, smaller than `shape` where that is an image of many pixels or has many rows."""
        if self.last:
            sizes = (self.count * SIDE**2, *(1 for _ in shape[1:-1]), shape[-1])
            return self._normal(sizes)
        height, width = (min(size, SIDE) for size in shape[2:])
        white = self._normal((self.count, shape[1], height, width))
        rows, columns = (self.rows[:size, :size].to(self.device) for size in (height, width))
        field: Tensor = rows @ white @ columns.T
        return field

    def _normal(self, shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=self.generator, dtype=torch.float64).to(self.device)
