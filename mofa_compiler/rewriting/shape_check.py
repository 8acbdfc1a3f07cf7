"""Shapes after an approximate pass over the graph: what was changed fits, and the output keeps its own."""

from __future__ import annotations

from typing import Any

from torch import fx
from torch.utils import _pytree as pytree

from ..base.errors import RewriteError
from .graph_rewriter import Rewiring


def check_shapes(wiring: Rewiring) -> None:
    """Check that what was changed fits, and that the network's output keeps its shape.

    Raises:
        RewriteError: it does not, or a shape changed outside of `changing`.
    """
    before, others = wiring.network.program, set[fx.Node]()
    originals = {new: old for old, new in wiring.node_of.items()}
    for node in (node for node in wiring.graph.nodes if node.op != "output"):
        replaced = node.op == "call_module" and wiring.module(node) is not before.modules.get(str(node.target))
        if replaced or not others.isdisjoint(node.all_input_nodes):
            recorded = _shapes(node)
            wiring.revalue(node)
            if _shapes(node) != recorded:
                raise RewriteError(
                    f"{wiring.pass_.name}: {node.name} has another shape by now: a bug in this pass", code="bug"
                )
        if node in originals and _shapes(node) != _shapes(originals[node]):
            others.add(node)
    was, by_now = (fx.map_arg(_output(graph).args, _shapes) for graph in (before.graph, wiring.graph))
    if was != by_now:
        raise RewriteError(
            f"{wiring.pass_.name}: the network's output has another shape by now: a bug in this pass", code="bug"
        )


def _shapes(node: fx.Node) -> list[Any]:
    """The shapes of what a node returns, and what of it is no tensor as it is."""
    return [getattr(leaf, "shape", leaf) for leaf in pytree.tree_leaves(node.meta.get("val"))]


def _output(graph: fx.Graph) -> fx.Node:
    output: fx.Node = next(node for node in reversed(graph.nodes) if node.op == "output")
    return output
