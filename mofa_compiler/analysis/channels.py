"""Which channels of a network may change places: a permutation that producers and readers both follow is free.

Channels are followed through the graph as in structural pruning (Fang et al., "DepGraph", CVPR 2023): what a
convolution writes is new, what an elementwise operation joins is the same, and what reaches an operation that is not
known stays where it is. Channels that a group convolution or a group normalization treats together are one class: a
class may be in a value several times.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from ..frontend.proxies import IN_PLACE
from ..graph.macs import function_name
from ..graph.plain_layers import is_torchs
from ..graph.program import Program
from .layers.neighbours import ACTIVATIONS, is_activation

Positions = np.ndarray[Any, np.dtype[Any]]

_ELEMENTWISE = ACTIVATIONS | {
    *("abs", "exp", "log", "sqrt", "rsqrt", "neg", "pow", "square", "sin", "cos", "clamp", "clamp_min", "clamp_max"),
    *("to", "float", "half", "double", "contiguous", "clone", "detach", "dropout", "dropout2d"),
    *("interpolate", "upsample", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d"),
}
_JOINING = frozenset(["add", "sub", "mul", "truediv", "div", "iadd", "isub", "imul", "itruediv", "maximum", "minimum"])
_POOLING = frozenset(["mean", "sum", "amax", "amin", "std", "var"])
_PASSING = (
    nn.Upsample,
    nn.Identity,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
    nn.modules.dropout._DropoutNd,
    nn.ZeroPad2d,
    nn.ReflectionPad2d,
    nn.ReplicationPad2d,
)
_ANYWHERE = (nn.Identity, nn.modules.dropout._DropoutNd)
"""What passes channels on whatever dimension they are in"""
_SPLITTING = frozenset(["chunk", "split", "tensor_split", "split_with_sizes"])
_ADDING = frozenset(["add", "sub", "iadd", "isub"])
_NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
_PLAIN = (bool, int, float, str, torch.dtype, torch.device)


@dataclass(frozen=True)
class Axis:
    """A dimension of a parameter or buffer that runs along channels.

    `path` is a module's (`names` are its tensors) or a tensor's own (no names). `reads` those that a layer mixes; what
    it makes of them are others.
    """

    path: str
    names: tuple[str, ...]
    dim: int
    reads: bool = False


class Channels:
    """The channels of every value of a program: which are the same, and which may change places.

    Attributes:
        values: for every node with a channel dimension, the number of each channel's class.
        axes: the same for every axis of a weight that runs along channels.
        orbits: sets of classes that may be permuted among one another, each in its present order.
        fixed: the node that keeps a class in its place, for those that may not be permuted.
        summed: classes that are sums of what several layers make, or of that and what they read: residual streams.
        joined: classes that a concatenation puts beside others.
        last: nodes whose channels lie along the last dimension, as linear layers make them.
    """

    def __init__(self, program: Program):
        self.program = program
        from networkx.utils import UnionFind  # slow to import, and linting needs none

        self._same: UnionFind = UnionFind()
        self._frozen: dict[int, fx.Node] = {}
        self._summed: list[int] = []
        self._joined: list[int] = []
        self._later: list[int] = []
        self.last: set[fx.Node] = set()
        self._raw: dict[fx.Node, Any] = {}
        self._axes: dict[Axis, list[int]] = {}
        self._cuts: list[tuple[list[int], list[int]]] = []
        self._next = 0
        holders = Counter(id(t) for m in _unique(program.modules.values()) for t in _tensors(m))
        holders.update(id(t) for t in program.tensors.values())
        read = {str(n.target) for n in program.graph.nodes if n.op == "get_attr" and _is_tensor(n)}
        holders.update(id(program.tensor(path)) for path in read - program.tensors.keys())  # a module's, and read aside
        self._tied = {key for key, count in holders.items() if count > 1}
        for node in program.graph.nodes:
            self._node = node
            self._raw[node] = self._visit(node)
        self.fixed = {self._same[symbol]: node for symbol, node in self._frozen.items()}
        self.summed, self.joined = ({self._same[s] for s in some} for some in (self._summed, self._joined))
        self.values = {
            node: np.array([self._same[s] for s in raw]) for node, raw in self._raw.items() if isinstance(raw, list)
        }
        self.axes = {axis: np.array([self._same[s] for s in raw]) for axis, raw in self._axes.items()}
        self.orbits = self._find_orbits()

    def _find_orbits(self) -> list[Positions]:
        """Classes that appear in the same values, equally often: in nothing but place do they differ.

        Bundles count them: what earlier versions did not know to be permutable comes last.
        """
        appearances: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for index, classes in enumerate((*self.values.values(), *self.axes.values())):
            for one, times in zip(*np.unique(classes, return_counts=True), strict=True):
                appearances[int(one)].append((index, int(times)))
        for number, (raw, positions) in enumerate(self._cuts, 1):
            # Of a class that a value holds several times, a slice has to take the same ones.
            seen, ranks = Counter[int](), []
            for symbol in raw:
                ranks.append((self._same[symbol], seen[self._same[symbol]]))
                seen[self._same[symbol]] += 1
            for one, rank in (ranks[position] for position in positions):
                appearances[one].append((-number, rank))
        orbits: dict[tuple[tuple[int, int], ...], list[int]] = defaultdict(list)
        for one, where in appearances.items():
            if one not in self.fixed:
                orbits[tuple(where)].append(one)
        later = {self._same[symbol] for symbol in self._later}
        found = [np.array(sorted(orbit)) for orbit in orbits.values() if len(orbit) > 1]
        return sorted(found, key=lambda orbit: int(orbit[0]) in later)

    def _visit(self, node: fx.Node) -> Any:
        value = node.meta.get("val")
        if node.op == "output":
            self._freeze(node.all_input_nodes)
            return None
        if node.op == "get_attr":
            return self._tensor(str(node.target), value)
        if node.op == "placeholder":
            return self._fixed(value)
        leaves = pytree.tree_leaves(value)
        if not any(isinstance(leaf, Tensor) for leaf in leaves):
            if not all(isinstance(leaf, _PLAIN) for leaf in leaves):  # x[...] = y, or a dataclass of tensors
                self._freeze(node.all_input_nodes)
            return None
        if any(
            isinstance(self._raw.get(source), (list, tuple)) and source in self.last for source in node.all_input_nodes
        ):
            self.last.add(node)
        raw = self._module(node) if node.op == "call_module" else self._function(node)
        if raw is not None and _fits(raw, value, last=node in self.last):
            return raw
        self.last.discard(node)
        self._freeze(node.all_input_nodes)
        return self._fixed(value)

    def _module(self, node: fx.Node) -> list[int] | None:
        path, module = str(node.target), self.program.modules[str(node.target)]
        source = self._of(node.args[0]) if node.args else None
        if not is_torchs(module, nn.Module) or any(id(t) in self._tied for t in _tensors(module)):
            return None
        if isinstance(module, nn.Linear):
            return self._linear(node, path, module, source)
        if source is None:
            return None
        if node in self.last:
            return source if isinstance(module, _ANYWHERE) or _is_elementwise(module) else None
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and module.groups == 1:
            turned = isinstance(module, nn.ConvTranspose2d)
            self._along(Axis(path, ("weight",), 0 if turned else 1, reads=True), source)
            out = self._new(module.out_channels)
            if module.bias is not None:
                self._along(Axis(path, ("bias",), 0), out)
            return self._along(Axis(path, ("weight",), 1 if turned else 0), out)
        if isinstance(module, nn.Conv2d) and not module.groups == module.in_channels == module.out_channels:
            out = self._new(module.out_channels)
            self._together([source, out], module.groups)
            return self._along(Axis(path, _named(module), 0), out)
        if isinstance(module, nn.GroupNorm):
            self._together([source], module.num_groups)
        many = isinstance(module, nn.PReLU) and module.num_parameters > 1
        if many or isinstance(module, (*_NORMS, nn.GroupNorm, nn.Conv2d)):
            self._later += source if many else []
            names = _named(module)
            return self._along(Axis(path, names, 0), source) if names else source
        return source if isinstance(module, _PASSING) or _is_elementwise(module) else None

    def _linear(self, node: fx.Node, path: str, module: nn.Linear, source: list[int] | None) -> list[int]:
        if source is None or node not in self.last:  # it reads another dimension than that of channels
            self._freeze(node.all_input_nodes)
            source = self._new(module.in_features)
            self._frozen |= dict.fromkeys(source, node)
        self._along(Axis(path, ("weight",), 1, reads=True), source)
        self.last.add(node)
        out = self._new(module.out_features)
        self._later += out
        if module.bias is not None:
            self._along(Axis(path, ("bias",), 0), out)
        return self._along(Axis(path, ("weight",), 0), out)

    def _together(self, values: Iterable[list[int]], groups: int) -> None:
        """Note that the channels of each group, in all these values, move as one."""
        for symbols in zip(*(np.array_split(value, groups) for value in values), strict=True):
            first, *others = np.concatenate(symbols).tolist()
            self._later.append(first)
            for other in others:
                self._same.union(first, other)

    def _function(self, node: fx.Node) -> Any:
        name = function_name(node)
        images = [arg for arg in node.args if isinstance(arg, fx.Node) and _is_tensor(arg)]
        if name in _JOINING or (node.target in IN_PLACE and len(node.args) == 2):
            return self._join([arg for arg in node.all_input_nodes if _is_tensor(arg)], adding=name in _ADDING)
        if name in ("cat", "concat", "concatenate"):
            return self._concatenate(node) if node not in self.last else None
        source = self._of(node.args[0]) if node.args else None
        if name == "getitem":
            whole = self._raw.get(node.args[0]) if isinstance(node.args[0], fx.Node) else None
            if isinstance(whole, tuple):
                return whole[node.args[1]] if isinstance(node.args[1], int) else None
            if source is None or node in self.last:
                return None
            return self._cut(source, _sliced(len(source), node.args[1]))
        if source is None or [n for n in node.all_input_nodes if _is_tensor(n)] != images[:1]:
            return None
        if name in _SPLITTING:
            parts = _split(node, last=node in self.last)
            return None if parts is None else tuple(self._cut(source, part) for part in parts)
        if node in self.last:
            return source if name in ACTIVATIONS or name == "dropout" else None
        if name == "pad":
            padding = node.args[1] if len(node.args) > 1 else node.kwargs.get("pad")
            return source if isinstance(padding, (list, tuple)) and len(padding) <= 4 else None
        if name in _POOLING:
            dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
            dims = (dims,) if isinstance(dims, int) else dims
            inside = isinstance(dims, (list, tuple)) and all(isinstance(d, int) and d in (2, 3, -1, -2) for d in dims)
            return source if inside else None
        return source if name in _ELEMENTWISE else None

    def _join(self, images: list[fx.Node], *, adding: bool) -> list[int] | None:
        raws = [self._of(image) for image in images]
        beside = self._node in self.last and not self.last.issuperset(images)
        if not raws or any(raw is None for raw in raws) or beside:
            return None
        wide = [raw for raw in raws if raw is not None and len(raw) > 1] or [raws[0] or []]
        for raw in raws:
            if raw is not None and len(raw) == 1 and len(wide[0]) > 1:
                self._frozen |= dict.fromkeys(raw, self._node)
        classes = {tuple(self._same[symbol] for symbol in raw) for raw in wide}
        if adding and len(classes) > 1 and sum(image.op != "get_attr" for image in images) > 1:
            self._summed += wide[0]
        for other in wide[1:]:
            if len(other) != len(wide[0]):
                return None
            for a, b in zip(wide[0], other, strict=True):
                self._same.union(a, b)
        return wide[0]

    def _concatenate(self, node: fx.Node) -> list[int] | None:
        parts = node.args[0] if node.args else node.kwargs.get("tensors")
        dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
        if not isinstance(parts, (list, tuple)) or dim not in (1, -3):
            return None
        raws = [self._of(part) for part in parts]
        if any(raw is None for raw in raws):
            return None
        found = [symbol for raw in raws if raw is not None for symbol in raw]
        self._joined += found
        return found

    def _cut(self, raw: list[int], positions: list[int] | None) -> list[int] | None:
        if positions is None:
            return None
        self._cuts.append((raw, positions))
        return [raw[position] for position in positions]

    def _of(self, node: Any) -> list[int] | None:
        raw = self._raw.get(node) if isinstance(node, fx.Node) else None
        return raw if isinstance(raw, list) else None

    def _new(self, count: int) -> list[int]:
        self._next += count
        return list(range(self._next - count, self._next))

    def _along(self, axis: Axis, symbols: list[int]) -> list[int]:
        """Note that an axis runs along channels; at every call of a module along the same ones."""
        known = self._axes.setdefault(axis, symbols)
        for a, b in zip(known, symbols, strict=True):
            self._same.union(a, b)
        return symbols

    def _tensor(self, path: str, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.dim() != 4 or path not in self.program.tensors:
            return self._fixed(value)
        if value.shape[0] != 1 or id(self.program.tensors[path]) in self._tied:
            return self._fixed(value)
        known = self._axes.get(Axis(path, (), 1))
        return self._along(Axis(path, (), 1), known or self._new(value.shape[1]))

    def _fixed(self, value: Any) -> Any:
        if isinstance(value, Tensor) and value.dim() == 4:
            symbols = self._new(value.shape[1])
            self._frozen |= dict.fromkeys(symbols, self._node)
            return symbols
        return None

    def _freeze(self, nodes: Iterable[fx.Node]) -> None:
        for node in nodes:
            raw = self._raw.get(node)
            for symbols in raw if isinstance(raw, tuple) else (raw,):
                self._frozen |= dict.fromkeys(symbols or [], self._node)


def _sliced(count: int, index: Any) -> list[int] | None:
    """Which of `count` channels an index takes; None where it is not a plain one."""
    channels = list(range(count))
    if not isinstance(index, tuple) or len(index) < 2:
        return channels if isinstance(index, slice) else None
    plain = all(
        isinstance(part, slice) and all(b is None or isinstance(b, int) for b in (part.start, part.stop, part.step))
        for part in index[:2]
    )
    rest = all(isinstance(part, slice) or part is Ellipsis for part in index[2:])
    cut: slice = index[1]
    return channels[cut] if plain and rest else None


def _split(node: fx.Node, *, last: bool) -> list[list[int]] | None:
    """Which channels each part has; None where something else than channels is split."""
    parts = node.meta["val"]
    dim = node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", 0)
    if not all(_has_channels(part, last=last) for part in parts):
        return None
    axis = parts[0].dim() - 1 if last else 1
    if not isinstance(dim, int) or dim % parts[0].dim() != axis:
        return None
    ends = np.cumsum([part.shape[axis] for part in parts]).tolist()
    return [list(range(end - part.shape[axis], end)) for end, part in zip(ends, parts, strict=True)]


def _fits(raw: Any, value: Any, *, last: bool) -> bool:
    if isinstance(raw, tuple):
        return isinstance(value, (list, tuple)) and len(raw) == len(value)
    return _has_channels(value, last=last) and value.shape[-1 if last else 1] == len(raw)


def _has_channels(value: Any, *, last: bool) -> bool:
    return isinstance(value, Tensor) and (value.dim() > 1 if last else value.dim() == 4)


def _is_elementwise(module: nn.Module) -> bool:
    """Whether a module does the same to every number."""
    return is_activation(module) and not (isinstance(module, nn.PReLU) and module.num_parameters > 1)


def _named(module: nn.Module) -> tuple[str, ...]:
    """The names of a module's tensors that have a number or more for every channel."""
    held = (*module._parameters.items(), *module._buffers.items())
    return tuple(name for name, tensor in held if tensor is not None and tensor.dim())


def _is_tensor(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), Tensor)


def _unique(modules: Iterable[nn.Module]) -> list[nn.Module]:
    return list({id(module): module for module in modules}.values())


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()
