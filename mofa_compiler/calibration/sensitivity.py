"""What a network's output feels of errors at its layers: the energy of its gradients, by channel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..analysis.network import Network
from ..base.torch_state import own_randomness
from ..graph.call_spec import map_tree, tensor_leaves
from ..graph.interpreter import Interpreter
from .batches import Batches
from .lockstep import bound_arguments

IMAGES = 4
"""On which gradients are taken: their energy is a mean over all pixels"""


def sensitivities(original: Network, batches: Batches) -> Mapping[fx.Node, Tensor]:
    """E[(Jᵀv)²] of every channel of every convolution, (C,), for white v of the outputs' own scale.

    An error of energy e in a channel, independent of others, changes the output by e times that. A convolution that
    the output has no gradient of is left out, and so are all of a network whose parts have none.
    """
    module = original.program.graph_module
    layers = {path for path, layer in original.layers.items() if isinstance(layer.module, nn.Conv2d)}
    found: dict[fx.Node, Tensor] = {}

    def adding(node: fx.Node) -> Callable[[Tensor], None]:
        def add(gradient: Tensor) -> None:
            energy = gradient.detach().double().square().sum((0, 2, 3))
            found[node] = found[node] + energy if node in found else energy

        return add

    class Watching(Interpreter):
        given: list[Tensor]

        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if n.op == "placeholder":
                value = map_tree(value, Tensor, self.followed)
            if n.op == "call_module" and str(n.target) in layers and value.requires_grad:
                value.register_hook(adding(n))
            return value

        def followed(self, value: Tensor) -> Tensor:
            """A copy that gradients go through, and that may be written into."""
            if not value.is_floating_point():
                return value
            self.given.append(value.detach().requires_grad_())
            return self.given[-1].clone()

    watching = Watching(module, graph=original.program.graph)
    noise = torch.Generator().manual_seed(0)
    for call in batches.one_by_one().first(IMAGES):
        watching.given = []
        try:
            with torch.enable_grad(), own_randomness():
                output = watching.run(*bound_arguments(module, call))
            ends = [leaf for leaf in tensor_leaves(output) if leaf.requires_grad]
            if ends and watching.given:  # no gradients of weights, which are the caller's
                torch.autograd.grad(ends, watching.given, [_white(end, noise) for end in ends], allow_unused=True)
        except RuntimeError:  # a function of somebody's without a backward pass, or values that were written over
            return {}
    return found


def _white(value: Tensor, generator: torch.Generator) -> Tensor:
    """White noise of the mean energy that the value has."""
    energy = value.detach().abs().double().square().mean().clamp_min(torch.finfo(torch.float64).tiny)
    noise = torch.randn(value.shape, generator=generator).to(value.device)
    return (noise / energy.sqrt()).to(value.dtype)
