"""Half precision, layer by layer: what overflows, and what loses more than is allowed."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..base.precision import Half
from ..base.torch_state import kept_buffers, own_randomness
from ..base.words import error_text
from ..graph.call_spec import CallSpec, bound_call, map_tree, tensor_leaves
from ..graph.interpreter import Interpreter
from ..graph.node_names import describe, path_of
from ..numerics.half import HALVES

ALLOWED = 0.02
"""Relative error of a layer's output that half precision may come to, with all layers before it"""


@dataclass(frozen=True)
class Stored:
    """What a layer returned with everything stored in half precision.

    Attributes:
        what: the layer, in words; `path`: of its module, or of the one that it is part of.
        low, high: range of its values in the network's own precision.
        error: root mean square of the difference ÷ that of the values; infinite where they are not finite.
    """

    what: str
    path: str
    low: float
    high: float
    error: float

    @property
    def overflows(self) -> bool:
        return math.isinf(self.error)


@dataclass(frozen=True)
class HalfStorage:
    """All layers of a network, in execution order, in a half precision."""

    precision: Half
    layers: tuple[Stored, ...]

    @property
    def first_overflow(self) -> Stored | None:
        return next((one for one in self.layers if one.overflows), None)

    @property
    def first_loss(self) -> Stored | None:
        """The first that loses more than is allowed."""
        return next((one for one in self.layers if one.error > ALLOWED), None)

    @property
    def ok(self) -> bool:
        return self.first_loss is None

    @property
    def sentence(self) -> str:
        """What was found, in a line."""
        if (worst := self.first_overflow or self.first_loss) is not None:
            return f"{worst.what} {self.said(worst)}"
        widest = max(self.layers, key=lambda one: max(-one.low, one.high))
        return (
            f"nothing overflows, and the output is {error_text(self.layers[-1].error)} off; the widest range is "
            f"{widest.low:.3g} to {widest.high:.3g}, of {widest.what}"
        )

    def said(self, one: Stored) -> str:
        """What is wrong with a layer, after its name."""
        values = f"its values go from {one.low:.3g} to {one.high:.3g}"
        if one.overflows:
            most = torch.finfo(HALVES[self.precision]).max
            return f"overflows in {self.precision}: {values}, and {self.precision} ends at {most:.3g}"
        return f"is {error_text(one.error)} off in {self.precision}, more than {error_text(ALLOWED)}: {values}"


def in_half_storage(network: fx.GraphModule, calls: Sequence[CallSpec], precision: Half) -> HalfStorage:
    """A network run on inputs with its weights and all values stored in half precision, beside itself.

    Errors are the worst over the inputs. What a layer keeps to itself while it computes is in whatever precision torch
    has for that: engines may overflow there where this does not.
    """
    half = copy.deepcopy(network).to(HALVES[precision])
    found: dict[fx.Node, Stored] = {}
    for call in calls:
        for node, one in _run(network, half, call, HALVES[precision]):
            before = found.get(node)
            if before is not None:
                low, high = min(before.low, one.low), max(before.high, one.high)
                one = replace(one, low=low, high=high, error=max(before.error, one.error))
            found[node] = one
    return HalfStorage(precision, tuple(found.values()))


def _run(network: fx.GraphModule, half: fx.GraphModule, call: CallSpec, dtype: torch.dtype) -> Iterator[Any]:
    given = bound_call(network, call).args
    narrowed = map_tree(given, Tensor, lambda x: x.to(dtype) if x.is_floating_point() else x)
    runs = [_started(module, args) for module, args in ((network, given), (half, narrowed))]
    both = zip(network.graph.nodes, half.graph.nodes, strict=True)
    with torch.no_grad(), kept_buffers(network), kept_buffers(half):
        for node, twin in both:
            values = []
            for run, own in zip(runs, (node, twin), strict=True):
                with own_randomness(seed=0):
                    run.env[own] = run.run_node(own)
                values.append([leaf for leaf in tensor_leaves(run.env[own]) if leaf.is_floating_point()])
                for read in run.user_to_last_uses.get(own, ()):
                    del run.env[read]
            if values[0] and node.op in ("call_module", "call_function", "call_method"):
                yield node, _compared(node, *values)


def _started(module: nn.Module, args: Any) -> Interpreter:
    run = Interpreter(module)
    run.env, run.args_iter = {}, iter(args)
    return run


def _compared(node: fx.Node, expected: Sequence[Tensor], got: Sequence[Tensor]) -> Stored:
    one, other = (torch.cat([leaf.detach().flatten().double() for leaf in leaves]) for leaves in (expected, got))
    path = str(node.target) if node.op == "call_module" else path_of(node)
    finite = one[one.isfinite()]
    low, high = (float(edge) for edge in finite.aminmax()) if finite.numel() else (math.nan, math.nan)
    if bool((one.isfinite() & ~other.isfinite()).any()):
        return Stored(describe(node), path, low, high, math.inf)
    both = one.isfinite() & other.isfinite()
    size = float(one[both].square().mean().sqrt()) if bool(both.any()) else 0.0
    off = float((one - other)[both].square().mean().sqrt()) if bool(both.any()) else 0.0
    return Stored(describe(node), path, low, high, off / size if size else 0.0)
