"""How data flows through a graph: the level of every node, the calls it lies in, and the main path.

The main path is the longest way from the input image to the output, counted in convolutions. Everything else in this
package is said in terms of it: what lies on it, where something leaves it and where it comes back.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any, NamedTuple

from torch import fx, nn

from ...graph.call_spec import tensor_leaves
from ...graph.program import Program
from .levels import SAME, find_levels, input_image
from .types import Level
from .values import DataFlow, operation

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
FUNCTIONAL_CONVOLUTIONS = frozenset(
    f"conv{kind}{dimensions}d" for kind in ("", "_transpose") for dimensions in (1, 2, 3)
)
NOWHERE = 1 << 60
"""Main-path position of what never comes back to the main path."""

_WEIGHTED = (*CONVOLUTIONS, nn.Linear)


class Call(NamedTuple):
    """One call of a module: its path, and a key that tells several calls of it apart."""

    path: str
    key: str


class Flow:
    """The graph of a program with everything that the stage rules ask about a node.

    Attributes:
        nodes: the graph's nodes in execution order.
        sources, users: the nodes whose tensors each node reads, and those that read its own.
        image: the input that levels are measured from.
        level: level of each node.
        weighted: how many convolutions and linear layers each node runs (several for an opaque module).
        calls: the module calls each node lies in, outermost first, including a leaf module's own.
        main: the main path.
        position: index on the main path of each node on it.
        left: for each node the last main-path position that its value depends on, -1 for none.
        feeds: for each node the first main-path position that depends on it, NOWHERE for none.
    """

    def __init__(self, program: Program):
        self.program = program
        self._data = data = DataFlow(program.graph)
        self.nodes, self.sources, self.users = data.nodes, data.sources, data.users
        self.image = input_image(data)
        self.level = find_levels(data, program, self.image)
        self.weighted = _count_weighted(program, self.nodes)
        self.calls = _find_calls(self.nodes)
        self.main = self._longest_path()
        self.position = {node: i for i, node in enumerate(self.main)}
        self.left = self._last_positions()
        self.feeds = self._first_positions()

    def _longest_path(self) -> list[fx.Node]:
        length: dict[fx.Node, float] = {self.image: 0.0}
        previous: dict[fx.Node, fx.Node] = {}
        for node in self.nodes:
            if node is self.image or not (node.op == "output" or self._data.has_tensor(node)):
                continue
            reached = [source for source in self.sources[node] if source in length]
            if not reached:
                continue
            source = max(reached, key=length.__getitem__)
            previous[node] = source
            length[node] = length[source] + self.weighted[node] + 1e-4
            if -900 < length[node] < 1 and is_deeper(self.level[node], self.level[source]):
                length[node] -= 1000  # a smaller copy of the raw image is a side input, not the way
        path = []
        node = self.nodes[-1]
        while node in previous:
            node = previous[node]
            path.append(node)
        return path[::-1] or [self.image]

    def _last_positions(self) -> dict[fx.Node, int]:
        left: dict[fx.Node, int] = {}
        for node in self.nodes:
            own = self.position.get(node)
            left[node] = max((left[s] for s in self.sources[node]), default=-1) if own is None else own
        return left

    def _first_positions(self) -> dict[fx.Node, int]:
        feeds: dict[fx.Node, int] = {}
        for node in reversed(self.nodes):
            own = self.position.get(node)
            feeds[node] = min((feeds[u] for u in self.users[node]), default=NOWHERE) if own is None else own
        return feeds

    def weighted_in_calls(self, *, spatial: bool = False) -> Counter[str]:
        """Convolutions per call key, over all branches; `spatial` leaves out those on pooled vectors."""
        totals: Counter[str] = Counter()
        for node in self.nodes:
            if self.weighted[node] and not (spatial and self.level[node] is None):
                for call in self.calls[node]:
                    totals[call.key] += self.weighted[node]
        return totals

    def is_image_convolution(self, node: fx.Node) -> bool:
        """Whether a node convolves something larger than a single pixel (a convolution of a pooled vector does not)."""
        if node.op == "call_module":
            convolves = any(isinstance(m, CONVOLUTIONS) for m in self.program.modules[str(node.target)].modules())
        else:
            convolves = node.op == "call_function" and operation(node) in FUNCTIONAL_CONVOLUTIONS
        shapes = (tensor.shape for tensor in tensor_leaves(self._data.value[node]))
        return convolves and any(len(shape) < 4 or shape[-1] * shape[-2] > 1 for shape in shapes)

    def carries_features(self, node: fx.Node) -> bool:
        """Whether a node computes real numbers, not indices or masks."""
        values = tensor_leaves(self._data.value[node])
        return any(tensor.is_floating_point() or tensor.is_complex() for tensor in values)

    def holds_several(self, node: fx.Node) -> bool:
        """Whether a node's value is a list of several tensors."""
        return len(list(tensor_leaves(self._data.value[node]))) > 1

    def channels(self, node: fx.Node) -> int | None:
        """Channels of the image that a node computes, None where it computes none."""
        first = next(tensor_leaves(self._data.value[node]), None)
        return first.shape[1] if first is not None and first.ndim == 4 else None

    def levels_in_paths(self) -> dict[str, Counter[float]]:
        """How many main-path nodes lie on each level inside each module path; "" is the whole network."""
        inside: defaultdict[str, Counter[float]] = defaultdict(Counter)
        for node in self.main:
            level = self.level[node] or 0
            inside[""][level] += 1
            for path in {call.path for call in self.calls[node]}:
                inside[path][level] += 1
        return inside


def is_deeper(level: Level, than: Level) -> bool:
    """Whether `level` is known to lie below `than`."""
    return level is not None and than is not None and level > than + SAME


def _count_weighted(program: Program, nodes: list[fx.Node]) -> dict[fx.Node, int]:
    in_module: dict[str, int] = {}
    counts: dict[fx.Node, int] = {}
    for node in nodes:
        if node.op == "call_module":
            path = str(node.target)
            if path not in in_module:
                in_module[path] = sum(isinstance(m, _WEIGHTED) for m in program.modules[path].modules())
            counts[node] = in_module[path]
        else:
            functional = node.op == "call_function" and operation(node) in (*FUNCTIONAL_CONVOLUTIONS, "linear")
            counts[node] = int(functional)
    return counts


def _find_calls(nodes: list[fx.Node]) -> dict[fx.Node, tuple[Call, ...]]:
    enclosing: dict[str, list[str]] = {}

    def containers_of(path: str) -> list[str]:
        if path not in enclosing:
            parts = path.split(".")
            enclosing[path] = [".".join(parts[:i]) for i in range(1, len(parts))]
        return enclosing[path]

    def calls_of(node: fx.Node) -> tuple[Call, ...]:
        stack: dict[str, tuple[str, Any]] = node.meta.get("nn_module_stack") or {}
        called = [Call(path, key) for key, (path, _) in stack.items() if path]
        if node.op == "call_module" and (not called or called[-1].path != node.target):
            called.append(Call(str(node.target), str(node.target)))
        seen = {call.path for call in called}
        complete: list[Call] = []
        for call in called:
            for container in containers_of(call.path):
                if container not in seen:  # a container whose own forward() was bypassed
                    seen.add(container)
                    complete.append(Call(container, container))
            complete.append(call)
        return tuple(complete)

    return {node: calls_of(node) for node in nodes}
