"""Which values a graph's nodes compute from which: what flows as tensors, writes into a tensor included."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

from torch import fx

from ...graph.call_spec import tensor_leaves


class DataFlow:
    """The tensor-carrying edges of a graph.

    A size that is read off a tensor carries none of its data, so it is no edge. `x[...] = y` makes everything that
    reads x afterwards depend on the write.

    Attributes:
        nodes: the graph's nodes in execution order.
        value: what each node computes, on the meta device; for a write, the tensor written into.
        sources: the nodes whose tensors each node reads, in the order of its arguments.
        users: the nodes that read each node's tensors.
    """

    def __init__(self, graph: fx.Graph):
        self.nodes: list[fx.Node] = list(graph.nodes)
        self.value: dict[fx.Node, Any] = {}
        sources: dict[fx.Node, list[fx.Node]] = {}
        users: dict[fx.Node, list[fx.Node]] = {node: [] for node in self.nodes}
        written: dict[fx.Node, fx.Node] = {}
        sizes: set[fx.Node] = set()
        for node in self.nodes:
            read = [written.get(source, source) for source in node.all_input_nodes]
            read_off = operation(node) == "size" or (node.target is getattr and node.args[1] == "shape")
            if read_off or (read and sizes.issuperset(read)):
                sizes.add(node)  # what is computed from sizes alone is none of the image, also as a tensor
            self.value[node] = None if node in sizes else node.meta.get("val")
            sources[node] = [source for source in read if self.has_tensor(source)]
            for source in sources[node]:
                users[source].append(node)
            if node.target is operator.setitem and isinstance(node.args[0], fx.Node):
                self.value[node] = None if node in sizes else node.args[0].meta.get("val")
                written[node.args[0]] = node
        self.sources: Mapping[fx.Node, Sequence[fx.Node]] = sources
        self.users: Mapping[fx.Node, Sequence[fx.Node]] = users

    def has_tensor(self, node: fx.Node) -> bool:
        """Whether a node's value is or contains a tensor."""
        return next(tensor_leaves(self.value[node]), None) is not None


def operation(node: fx.Node) -> str:
    """The plain name of what a node calls: "cat", "add", ...; a module's path."""
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
