"""Which channels of a network may change places: a permutation that producers and readers both follow is free.

Channels are followed through the graph as in structural pruning (Fang et al., "DepGraph", CVPR 2023): what a
convolution writes is new, what an elementwise operation joins is the same, and what reaches an operation that is not
known stays where it is.
"""

from __future__ import annotations

import copy
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from networkx.utils import UnionFind
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from ..analysis.layers.neighbours import _ACTIVATIONS
from ..frontend.proxies import IN_PLACE
from ..graph.macs import function_name
from ..graph.plain_layers import is_torchs
from ..graph.program import Program

Positions = np.ndarray[Any, np.dtype[Any]]
Orders = Mapping[int, tuple[int, ...]]

_ELEMENTWISE = _ACTIVATIONS | {
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
_MIXING_ACTIVATIONS = (nn.MultiheadAttention, nn.Softmax, nn.Softmax2d, nn.LogSoftmax, nn.Softmin, nn.GLU, nn.PReLU)
_NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
_PLAIN = (bool, int, float, str, torch.dtype, torch.device)


@dataclass(frozen=True)
class Axis:
    """A dimension of a parameter or buffer that runs along channels.

    `path` is a module's (`names` are its tensors) or a tensor's own (no names).
    """

    path: str
    names: tuple[str, ...]
    dim: int


class Channels:
    """The channels of every value of a program: which are the same, and which may change places.

    Attributes:
        values: for every node with a channel dimension, the number of each channel's class.
        orbits: sets of classes that may be permuted among one another, each in its present order.
    """

    def __init__(self, program: Program):
        self.program = program
        self._same: UnionFind = UnionFind()
        self._frozen: list[int] = []
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
            self._raw[node] = self._visit(node)
        frozen = {self._same[symbol] for symbol in self._frozen}
        self.values = {
            node: np.array([self._same[s] for s in raw]) for node, raw in self._raw.items() if isinstance(raw, list)
        }
        self.axes = {axis: np.array([self._same[s] for s in raw]) for axis, raw in self._axes.items()}
        self.orbits = self._find_orbits(frozen)

    def _find_orbits(self, frozen: set[int]) -> list[Positions]:
        """Classes that appear in the same values, equally often: in nothing but place do they differ."""
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
            if one not in frozen:
                orbits[tuple(where)].append(one)
        return [np.array(sorted(orbit)) for orbit in orbits.values() if len(orbit) > 1]

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
        raw = self._module(node) if node.op == "call_module" else self._function(node)
        if raw is not None and _fits(raw, value):
            return raw
        self._freeze(node.all_input_nodes)
        return self._fixed(value)

    def _module(self, node: fx.Node) -> list[int] | None:
        path, module = str(node.target), self.program.modules[str(node.target)]
        source = self._of(node.args[0]) if node.args else None
        if source is None or not is_torchs(module, nn.Module) or any(id(t) in self._tied for t in _tensors(module)):
            return None
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and module.groups == 1:
            turned = isinstance(module, nn.ConvTranspose2d)
            self._along(Axis(path, ("weight",), 0 if turned else 1), source)
            out = self._new(module.out_channels)
            if module.bias is not None:
                self._along(Axis(path, ("bias",), 0), out)
            return self._along(Axis(path, ("weight",), 1 if turned else 0), out)
        per_channel = isinstance(module, _NORMS) or (
            isinstance(module, nn.Conv2d) and module.groups == module.in_channels == module.out_channels
        )
        if per_channel:
            names = [n for n, t in (*module._parameters.items(), *module._buffers.items()) if t is not None and t.dim()]
            return self._along(Axis(path, tuple(names), 0), source) if names else source
        if isinstance(module, _PASSING):
            return source
        in_torch = type(module).__module__ == "torch.nn.modules.activation"
        single = isinstance(module, nn.PReLU) and module.num_parameters == 1
        return source if in_torch and (single or not isinstance(module, _MIXING_ACTIVATIONS)) else None

    def _function(self, node: fx.Node) -> Any:
        name = function_name(node)
        images = [arg for arg in node.args if isinstance(arg, fx.Node) and _is_tensor(arg)]
        if name in _JOINING or (node.target in IN_PLACE and len(node.args) == 2):
            return self._join([arg for arg in node.all_input_nodes if _is_tensor(arg)])
        if name in ("cat", "concat", "concatenate"):
            return self._concatenate(node)
        source = self._of(node.args[0]) if node.args else None
        if name == "getitem":
            whole = self._raw.get(node.args[0]) if isinstance(node.args[0], fx.Node) else None
            if isinstance(whole, tuple):
                return whole[node.args[1]] if isinstance(node.args[1], int) else None
            return self._cut(source, _sliced(len(source), node.args[1])) if source is not None else None
        if source is None or [n for n in node.all_input_nodes if _is_tensor(n)] != images[:1]:
            return None
        if name in ("chunk", "split", "tensor_split", "split_with_sizes"):
            parts = _split(node)
            return None if parts is None else tuple(self._cut(source, part) for part in parts)
        if name == "pad":
            padding = node.args[1] if len(node.args) > 1 else node.kwargs.get("pad")
            return source if isinstance(padding, (list, tuple)) and len(padding) <= 4 else None
        if name in _POOLING:
            dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
            dims = (dims,) if isinstance(dims, int) else dims
            inside = isinstance(dims, (list, tuple)) and all(isinstance(d, int) and d in (2, 3, -1, -2) for d in dims)
            return source if inside else None
        return source if name in _ELEMENTWISE else None

    def _join(self, images: list[fx.Node]) -> list[int] | None:
        raws = [self._of(image) for image in images]
        if not raws or any(raw is None for raw in raws):
            return None
        wide = [raw for raw in raws if raw is not None and len(raw) > 1] or [raws[0] or []]
        for raw in raws:
            if raw is not None and len(raw) == 1 and len(wide[0]) > 1:
                self._frozen += raw
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
        return [symbol for raw in raws if raw is not None for symbol in raw]

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
            self._frozen += symbols
            return symbols
        return None

    def _freeze(self, nodes: Iterable[fx.Node]) -> None:
        for node in nodes:
            raw = self._raw.get(node)
            for symbols in raw if isinstance(raw, tuple) else (raw,):
                self._frozen += symbols or []


def reordered(channels: Channels, orders: Orders) -> Program:
    """The program with channels permuted: it computes the same.

    Args:
        channels: of the program.
        orders: for the number of an orbit, which of its channels comes to each place.
    """
    program = channels.program
    new_class: dict[int, int] = {}
    for number, places in orders.items():
        orbit = channels.orbits[number]
        new_class |= dict(zip(orbit.tolist(), orbit[list(places)].tolist(), strict=True))
    modules, tensors = dict(program.modules), dict(program.tensors)
    copies: dict[int, nn.Module] = {}
    for axis, classes in channels.axes.items():
        sources = _sources(classes, new_class)
        if bool((sources == np.arange(len(sources))).all()):
            continue
        order = torch.from_numpy(sources)
        if not axis.names:
            old = tensors[axis.path]
            moved = old.detach().index_select(axis.dim, order.to(old.device))
            tensors[axis.path] = nn.Parameter(moved, old.requires_grad) if isinstance(old, nn.Parameter) else moved
            continue
        old_module = program.modules[axis.path]
        module = copies.setdefault(id(old_module), copy.deepcopy(old_module))
        with torch.no_grad():
            for name in axis.names:
                tensor = getattr(module, name)
                tensor.copy_(tensor.index_select(axis.dim, order.to(tensor.device)))
    modules = {path: copies.get(id(module), module) for path, module in modules.items()}
    return replace(program, modules=modules, tensors=tensors)


def in_order(program: Program, orders: Orders) -> Program:
    """A program of an architecture whose channels were permuted, permuted in the same way."""
    return reordered(Channels(program), orders) if orders else program


def _sources(classes: Positions, new_class: Mapping[int, int]) -> Positions:
    """For every position, the position whose content comes there: the same occurrence of the class that is to be."""
    places: dict[int, list[int]] = defaultdict(list)
    for position, one in enumerate(classes.tolist()):
        places[one].append(position)
    seen: Counter[int] = Counter()
    sources = np.arange(len(classes))
    for position, one in enumerate(classes.tolist()):
        sources[position] = places[new_class.get(one, one)][seen[one]]
        seen[one] += 1
    return sources


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


def _split(node: fx.Node) -> list[list[int]] | None:
    """Which channels each part has; None where something else than channels is split."""
    parts = node.meta["val"]
    dim = node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", 0)
    if dim not in (1, -3) or not all(isinstance(part, Tensor) and part.dim() == 4 for part in parts):
        return None
    ends = np.cumsum([part.shape[1] for part in parts]).tolist()
    return [list(range(end - part.shape[1], end)) for end, part in zip(ends, parts, strict=True)]


def _fits(raw: Any, value: Any) -> bool:
    if isinstance(raw, tuple):
        return isinstance(value, (list, tuple)) and len(raw) == len(value)
    return isinstance(value, Tensor) and value.dim() == 4 and value.shape[1] == len(raw)


def _is_tensor(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), Tensor)


def _unique(modules: Iterable[nn.Module]) -> list[nn.Module]:
    return list({id(module): module for module in modules}.values())


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()
