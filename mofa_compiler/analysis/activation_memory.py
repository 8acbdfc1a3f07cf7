"""Peak activation memory: the most bytes that a network's values take at once, from shapes alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from ..base.torch_state import own_randomness
from ..graph.node_names import path_of
from ..graph.program import Program
from ..graph.shape_propagation import evaluate, recorded


@dataclass(frozen=True)
class Peak:
    """The most memory that values take at once.

    Attributes:
        bytes: how much; inputs count, parameters and buffers do not.
        node: name of the call during which that is so; empty where the inputs alone are the peak.
        path: of the module that is called there, or that makes the call in its `forward`.
        live: bytes at the peak of each call, by its node's name, in execution order.
    """

    bytes: int
    node: str
    path: str
    live: Mapping[str, int]


def peak_activation(program: Program) -> Peak:
    """The peak of one forward pass on the example input, without gradients.

    Every operator of torch is taken to allocate its results, one inside a layer (`PConv2d`'s, a custom function's) as
    well; views and what works in place share the memory that they are made of. A value is freed after its last use, as
    the captured graph does and engines do (the frames of a model's own `forward` may hold values longer), inputs never.
    Left out is what an operator's kernel needs for itself, and what an allocator rounds up. Of a call that does not run
    without values only the results count.
    """
    shapes, memory = program.without_values(), _Memory()
    last_reader = {source: node for node in program.graph.nodes for source in node.all_input_nodes}
    unread: dict[fx.Node, list[fx.Node]] = {}
    for node in program.graph.nodes:
        unread.setdefault(last_reader.get(node, node), []).append(node)
    inputs = {node: memory.new(recorded(node)) for node in program.graph.find_nodes(op="placeholder")}
    values: dict[fx.Node, Any] = dict(inputs)
    live: dict[str, int] = {}
    peak, where = memory.live, None
    with own_randomness():  # a graph may draw random numbers
        for node in program.graph.nodes:
            if node.op.startswith("call") or node.op == "get_attr":
                memory.most = memory.live
                values[node] = _value(node, shapes, values, memory)
                live[node.name] = memory.most
                if memory.most > peak:
                    peak, where = memory.most, node
            for gone in unread.get(node, ()):
                values.pop(gone, None)
    return Peak(peak, where.name if where else "", _path(where) if where else "", live)


def _value(node: fx.Node, shapes: Program, values: Mapping[fx.Node, Any], memory: _Memory) -> Any:
    if not any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(recorded(node))):
        return recorded(node)  # a size, say, or a check of one
    if node.op == "get_attr":
        return shapes.tensor(str(node.target))
    with suppress(Exception), memory:  # whatever a function raises that looks at values
        return evaluate(node, shapes, values.__getitem__)
    return memory.new(recorded(node))


def _path(node: fx.Node) -> str:
    return str(node.target) if node.op == "call_module" else path_of(node)


class _Memory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the storages that operators make, as long as they live."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = 0
        self._storages: Any = WeakIdKeyDictionary()

    @property
    def live(self) -> int:
        return sum(self._storages.values())

    def new(self, recorded: Any) -> Any:
        """Tensors in memory of their own in place of recorded ones."""
        value = pytree.tree_map_only(Tensor, lambda t: torch.empty_like(t, device="meta"), recorded)
        self._count(_tensors(value))
        return value

    def _count(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            storage = tensor.untyped_storage()
            self._storages[storage] = storage.nbytes()
        self.most = max(self.most, self.live)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {tensor.untyped_storage()._cdata for tensor in _tensors((args, kwargs))}
        self._count(tensor for tensor in _tensors(result) if tensor.untyped_storage()._cdata not in given)
        return result


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]
