"""How data flows through a graph: the level of every node, the calls it lies in, and the main path.

The main path is the longest way from the input image to the output, counted in convolutions. Everything else in this
package is said in terms of it: what lies on it, where something leaves it and where it comes back.
"""

from __future__ import annotations

import math
import operator
from collections import Counter
from typing import Any, NamedTuple

from torch import fx, nn
from torch.nn.modules.padding import _CircularPadNd, _ConstantPadNd, _ReflectionPadNd, _ReplicationPadNd

from ..errors import AnatomyError
from ..inputs import tensor_leaves
from ..program import Program
from .description import Level

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
FUNCTIONAL_CONVOLUTIONS = frozenset(
    f"conv{kind}{dimensions}d" for kind in ("", "_transpose") for dimensions in (1, 2, 3)
)
CONCATENATIONS = frozenset({"cat", "concat", "concatenate"})
SAME = 0.4
"""Levels that differ by no more than this count as the same: odd sizes and scale factors like 1.3."""
NOWHERE = 1 << 60
"""Main-path position of what never comes back to the main path."""

_WEIGHTED = (*CONVOLUTIONS, nn.Linear)
_PADDING = (_CircularPadNd, _ConstantPadNd, _ReflectionPadNd, _ReplicationPadNd)
_Frame = tuple[float, float]


class Call(NamedTuple):
    """One call of a module: its path, and a key that tells several calls of it apart."""

    path: str
    key: str


class Flow:
    """The graph of a program with everything that the stage rules ask about a node.

    Attributes:
        nodes: the graph's nodes in execution order.
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
        self.nodes: list[fx.Node] = list(program.graph.nodes)
        self.image = _input_image(self.nodes)
        self.level = _Scales(program, self.image).levels(self.nodes)
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
            if node is self.image or not (node.op == "output" or has_tensor(node)):
                continue
            reached = [source for source in node.all_input_nodes if source in length]
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
            left[node] = max((left[s] for s in node.all_input_nodes), default=-1) if own is None else own
        return left

    def _first_positions(self) -> dict[fx.Node, int]:
        feeds: dict[fx.Node, int] = {}
        for node in reversed(self.nodes):
            own = self.position.get(node)
            feeds[node] = min((feeds[u] for u in node.users), default=NOWHERE) if own is None else own
        return feeds

    def weighted_in_calls(self, *, spatial: bool = False) -> Counter[str]:
        """Convolutions per call key, over all branches; `spatial` leaves out those on pooled vectors."""
        totals: Counter[str] = Counter()
        for node in self.nodes:
            if self.weighted[node] and not (spatial and self.level[node] is None):
                for call in self.calls[node]:
                    totals[call.key] += self.weighted[node]
        return totals

    def levels_in_paths(self) -> dict[str, Counter[float]]:
        """How many main-path nodes lie on each level inside each module path; "" is the whole network."""
        inside: dict[str, Counter[float]] = {"": Counter()}
        for node in self.main:
            level = self.level[node] or 0
            inside[""][level] += 1
            for path in {call.path for call in self.calls[node]}:
                inside.setdefault(path, Counter())[level] += 1
        return inside


def is_deeper(level: Level, than: Level) -> bool:
    """Whether `level` is known to lie below `than`."""
    return level is not None and than is not None and level > than + SAME


def operation(node: fx.Node) -> str:
    """The plain name of what a node calls: "cat", "add", ...; a module's path."""
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))


def has_tensor(node: fx.Node) -> bool:
    """Whether a node's value is or contains a tensor."""
    return next(tensor_leaves(node.meta.get("val")), None) is not None


def is_image_convolution(node: fx.Node, program: Program) -> bool:
    """Whether a node convolves something larger than a single pixel (a convolution of a pooled vector does not)."""
    if node.op == "call_module":
        convolves = any(isinstance(m, CONVOLUTIONS) for m in program.modules[str(node.target)].modules())
    else:
        convolves = node.op == "call_function" and operation(node) in FUNCTIONAL_CONVOLUTIONS
    shapes = (t.shape for t in tensor_leaves(node.meta.get("val")))
    return convolves and any(len(shape) < 4 or shape[-1] * shape[-2] > 1 for shape in shapes)


def _input_image(nodes: list[fx.Node]) -> fx.Node:
    arguments: dict[fx.Node, Any] = {}
    for node in nodes:
        source = node.args[0] if node.target is operator.getitem else None
        held = arguments.get(source) if isinstance(source, fx.Node) else None
        if node.op == "placeholder" or isinstance(held, (list, tuple, dict)):
            arguments[node] = node.meta.get("val")  # an image may also lie in a list or dict
    images: list[fx.Node] = [node for node, value in arguments.items() if getattr(value, "ndim", 0) == 4]
    if not images:
        raise AnatomyError("no input is an image batch (N, C, H, W), so there is no resolution to infer stages from")
    return max(images, key=lambda n: n.meta["val"].shape[-1] * n.meta["val"].shape[-2])


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


class _Scales:
    """Levels, each relative to the full-resolution frame that a tensor lives in.

    Padding and cropping change the size but not the scale: they start a new frame.
    """

    def __init__(self, program: Program, image: fx.Node):
        self.program = program
        self.image = image
        shape = image.meta["val"].shape
        self.batch = shape[0]
        channels_last = shape[-1] <= 4 < shape[1]
        height, width = shape[1:3] if channels_last else shape[-2:]
        self.frames: dict[fx.Node, _Frame] = {image: (height, width)}

    def levels(self, nodes: list[fx.Node]) -> dict[fx.Node, Level]:
        levels: dict[fx.Node, Level] = {}

        def prominence(source: fx.Node) -> tuple[bool, float]:
            return levels[source] is not None, -(levels[source] or 0)

        for node in nodes:
            sources = [source for source in node.all_input_nodes if source in self.frames]
            if sources:
                self.frames[node] = self.frames[max(sources, key=prominence)]
            elif node is not self.image:
                levels[node] = None
                continue
            levels[node] = self._level_in(self.frames[node], node)
            original = next((source for source in sources if _spatial_size(source)), None)
            if original is not None and levels[original] is not None and self._reframes(node, original):
                levels[node] = level = levels[original]
                height, width = _spatial_size(node) or (0, 0)
                self.frames[node] = (height * 2 ** (level or 0), width * 2 ** (level or 0))
        return levels

    def _reframes(self, node: fx.Node, original: fx.Node) -> bool:
        """Whether a node only crops, pads or joins side by side."""
        before, after = _spatial_size(original), _spatial_size(node)
        return after is not None and after != before and self._keeps_scale(node)

    def _keeps_scale(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            return isinstance(self.program.modules[str(node.target)], _PADDING)
        name = operation(node)
        if name == "getitem" and isinstance(node.args[1], tuple):
            return all(not isinstance(index, slice) or index.step in (None, 1) for index in node.args[1])
        if name in CONCATENATIONS or name in ("chunk", "split", "tensor_split"):
            place = 1 if name in CONCATENATIONS else 2
            dimension = node.kwargs.get("dim", node.args[place] if len(node.args) > place else 0)
            return dimension in (2, 3, -1, -2)
        return name in ("pad", "narrow")

    def _level_in(self, frame: _Frame, node: fx.Node) -> Level:
        for tensor in tensor_leaves(node.meta.get("val")):
            if tensor.ndim < 3 or tensor.shape[0] != self.batch:
                continue  # windows folded into the batch, attention maps
            if tensor.ndim == 4 and tensor.shape[-1] > 1 and tensor.shape[-2] > 1:
                vertical = math.log2(frame[0] / tensor.shape[-2])
                horizontal = math.log2(frame[1] / tensor.shape[-1])
                if abs(vertical - horizontal) < 0.1:
                    level = (vertical + horizontal) / 2
                    return round(level) if abs(level - round(level)) < 0.3 else round(level, 1)
            if tensor.ndim == 3 and tensor.shape[1] > 1:  # tokens (N, H * W, C)
                level = math.log2(frame[0] * frame[1] / tensor.shape[1]) / 2
                if abs(level - round(level)) < 1e-6:
                    return round(level)
        return None


def _spatial_size(node: fx.Node) -> tuple[int, int] | None:
    first = next(tensor_leaves(node.meta.get("val")), None)
    return (first.shape[-2], first.shape[-1]) if first is not None and first.ndim == 4 else None
