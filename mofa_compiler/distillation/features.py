"""The two networks with their values at the ends of the stages, so that one can be compared with the other there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..analysis.network import Network
from ..graph.call_spec import tensor_leaves
from ..graph.node_names import new_graph
from ..rewriting.layer_surgery import origin


@dataclass(frozen=True)
class StageEnd:
    """Where the features of a stage are: names of the nodes in the original's and in the rewritten graph."""

    stage: str
    original: str
    rewritten: str


def stage_ends(original: Network, rewritten: Network) -> tuple[StageEnd, ...]:
    """The last node of each stage on the main path that has a partner of the same shape, in execution order.

    What a network returns is no feature and left out: the output is compared anyway.
    """
    partners = {origin(node): node for node in rewritten.program.graph.nodes if origin(node) is not None}
    graph, anatomy = original.program.graph, original.anatomy
    main_path = set(anatomy.main_path)
    returned = {node.name for node in graph.output_node().all_input_nodes}
    ends: dict[str, StageEnd] = {}
    for node in graph.nodes:
        partner = partners.get(node.name)
        if partner is None or node.name not in main_path or node.name in returned:
            continue
        stage = anatomy.stage_of(_path(node))
        if stage is not None and _is_feature(node) and _shape(node) == _shape(partner):
            ends.pop(stage.name, None)
            ends[stage.name] = StageEnd(stage.name, node.name, partner.name)
    return tuple(ends.values())


class Tapped(nn.Module):
    """A graph that also returns the values of some nodes; it shares every parameter and buffer with `root`.

    A call returns the tensors in the output, in order, and those of `nodes`.
    """

    def __init__(self, root: nn.Module, graph: fx.Graph, nodes: Sequence[str]):
        super().__init__()
        tapped = new_graph()
        copies: dict[fx.Node, fx.Node] = {}
        output = tapped.graph_copy(graph, copies)
        by_name = {node.name: copy for node, copy in copies.items()}
        tapped.output((output, [by_name[name] for name in nodes]))
        self.body = fx.GraphModule(root, tapped)

    def forward(self, *args: Any, **kwargs: Any) -> tuple[list[Tensor], list[Tensor]]:
        output, features = self.body(*args, **kwargs)
        return [leaf for leaf in tensor_leaves(output) if leaf.is_floating_point()], list(features)


def _path(node: fx.Node) -> str:
    """Path of the module that a node calls, or that it stands in."""
    if node.op == "call_module":
        return str(node.target)
    stack = list((node.meta.get("nn_module_stack") or {"": ("", None)}).values())
    return str(stack[-1][0])


def _shape(node: fx.Node) -> torch.Size | None:
    value = node.meta.get("val")
    return value.shape if isinstance(value, Tensor) else None


def _is_feature(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.is_floating_point() and value.ndim > 1
