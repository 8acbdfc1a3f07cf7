"""The flat graph back to calls within calls: one region for every call of a container."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import fx

from ..graph.program import Program
from .literals import IN_PLACE, INFIX, PREFIX, function_source
from .module_tree import Tree

_DEAD_WHEN_UNUSED = {getattr, operator.getitem, *INFIX, *PREFIX}
_KNOWN = {getattr, *INFIX, *PREFIX, *IN_PLACE, operator.getitem, operator.setitem, operator.not_, operator.abs}
_QUESTIONS = {"size", "dim", "numel", "stride", "element_size"}


@dataclass(eq=False)
class Region:
    """The nodes of one call of the container at `path`; a nested call is an item of its own.

    `inputs` are the values that it reads from outside, in the order of their first use, `outputs` those that are read
    outside.
    """

    path: str
    items: list[Item] = field(default_factory=list)
    inputs: list[fx.Node] = field(default_factory=list)
    outputs: list[fx.Node] = field(default_factory=list)
    output: Any = None
    """For the whole program: what it returns, with nodes in place of values"""

    def calls(self) -> Iterator[Region]:
        """The nested calls, innermost first, this one last."""
        for item in self.items:
            if isinstance(item, Region):
                yield from item.calls()
        yield self


Item = fx.Node | Region


def operands(value: Any) -> list[fx.Node]:
    """The nodes in an argument structure, in order and with repetitions."""
    found: list[fx.Node] = []
    fx.map_arg(value, lambda node: found.append(node) or node)  # type: ignore[func-returns-value]
    return found


def inputs_of(item: Item) -> list[fx.Node]:
    """The values that an item reads, in the order in which its source names them."""
    return item.inputs if isinstance(item, Region) else operands((item.args, item.kwargs))


def live_nodes(graph: fx.Graph) -> dict[fx.Node, None]:
    """The nodes whose result counts; unused sizes, indices and arithmetic, which change nothing, are left out."""
    live: dict[fx.Node, None] = {}
    for node in reversed(graph.nodes):
        pure = node.target in _DEAD_WHEN_UNUSED or (node.op == "call_method" and node.target in _QUESTIONS)
        if not (pure or node.op == "get_attr") or any(user in live for user in node.users):
            live[node] = None
    return dict.fromkeys(reversed(live))


def traced_containers(program: Program) -> set[str]:
    """Paths of the containers that tracing went through."""
    return {
        path
        for node in program.graph.nodes
        for path, _ in (node.meta.get("nn_module_stack") or {}).values()
        if not (node.op == "call_module" and path == node.target)
    }


def other_functions(region: Region) -> Iterator[Any]:
    """The functions that a region calls and that are neither torch's nor Python's."""
    for item in region.items:
        if isinstance(item, Region):
            yield from other_functions(item)
        elif item.op == "call_function" and is_foreign(item.target):
            yield item.target


def is_foreign(function: Any) -> bool:
    """Whether a function is neither torch's nor Python's."""
    return function not in _KNOWN and function_source(function) is None


class Regions:
    """Builds the regions of a program, given which containers' code is to stand in their parents'."""

    def __init__(self, program: Program, tree: Tree, inlined: set[str]):
        self.tree = tree
        self.inlined = inlined
        self.to_inline: set[str] = set()
        """Containers that turned out to need it: a call of theirs is scattered, or uses modules from elsewhere"""
        graph = program.graph
        self.live = live_nodes(graph)
        nodes = [node for node in self.live if node.op in ("call_module", "call_function", "call_method")]
        self._stacks = {node: self._stack(node) for node in nodes}
        self.root = self._region("", nodes, 0)
        self.root.inputs = [node for node in graph.nodes if node.op == "placeholder"]
        (output,) = (node for node in graph.nodes if node.op == "output")
        self.root.output = output.args[0]
        self.root.outputs = operands(output.args[0])

    def _stack(self, node: fx.Node) -> list[tuple[str, str]]:
        stack = (node.meta.get("nn_module_stack") or {}).items()
        calls = [(key, path) for key, (path, _) in stack if path and path not in self.inlined]
        by_path = self.tree.by_path
        return [(key, path) for key, path in calls if path in by_path and by_path[path].layer is None]

    def _region(self, path: str, nodes: list[fx.Node], depth: int) -> Region:
        region = Region(path)
        runs: list[tuple[tuple[str, str] | None, list[fx.Node]]] = []
        for node in nodes:
            stack = self._stacks[node]
            key = stack[depth] if len(stack) > depth else None
            if key is None or not runs or runs[-1][0] != key:
                runs.append((key, []))
            runs[-1][1].append(node)
        seen: set[tuple[str, str]] = set()
        for key, run in runs:
            if key is None:
                region.items.append(run[0])
                self._expect_within(str(run[0].target) if run[0].op == "call_module" else None, path)
                continue
            if key in seen:
                self.to_inline.add(key[1])
            seen.add(key)
            self._expect_within(key[1], path)
            region.items.append(self._region(key[1], run, depth + 1))
        self._find_borders(region, nodes)
        return region

    def _expect_within(self, target: str | None, path: str) -> None:
        if target is not None and self.tree.below(target, path) is None:
            self.to_inline.add(path)

    def _find_borders(self, region: Region, nodes: list[fx.Node]) -> None:
        inside = set(nodes)
        seen: set[fx.Node] = set()
        for item in region.items:
            for value in inputs_of(item):
                if value not in inside and value not in seen and not self.is_own(value, region.path):
                    seen.add(value)
                    region.inputs.append(value)
        region.outputs = [
            node for node in nodes if any(user in self.live and user not in inside for user in node.users)
        ]

    def is_own(self, value: fx.Node, path: str) -> bool:
        """Whether a value is an attribute that the container at `path` reaches itself."""
        if value.op != "get_attr":
            return False
        return value.target == "training" or self.tree.below(str(value.target), path) is not None
