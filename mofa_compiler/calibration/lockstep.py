"""Two networks run side by side on many batches, a stretch at a time, in memory that does not grow with the batches."""

from __future__ import annotations

import inspect
import operator
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from networkx.utils import UnionFind
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from ..analysis.layers.neighbours import ACTIVATIONS
from ..base.torch_state import own_randomness
from ..frontend.proxies import IN_PLACE
from ..graph.call_spec import CallSpec, tensor_leaves
from ..graph.macs import function_name
from ..graph.plain_layers import altered
from ..nn.partial_conv import PartialConv2d
from ..rewriting.layer_surgery import Selection
from .batches import Batches

_FRESH = (
    *(nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.Linear, PartialConv2d),
    *(nn.Upsample, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d),
)
_FRESH_FUNCTIONS = ACTIVATIONS | {
    *("add", "sub", "mul", "truediv", "div", "pow", "cat", "concat", "concatenate", "clone", "mean", "sum"),
    *("conv2d", "linear", "batch_norm", "instance_norm", "group_norm", "layer_norm", "interpolate", "max_pool2d"),
    *("avg_pool2d", "adaptive_avg_pool2d"),
}

IN_MEMORY = 1 << 30
"""Bytes of intermediate values that are kept in memory between two stretches; what is more goes to temporary files"""


class Together(dict[str, Any]):
    """Values by name that may share memory, and do so again when they come back from a file."""


class Shelf:
    """Values by batch and name between two stretches: in memory up to a limit, then in files of a temporary folder."""

    def __init__(self, folder: Path, limit: float = IN_MEMORY):
        self._folder, self._limit, self._held, self._number = folder, limit, 0, 0
        self._values: dict[int, dict[str, Any]] = defaultdict(dict)

    def names(self, batch: int, prefix: str) -> list[str]:
        """The names of a batch's values that start with `prefix` and a dot, without them."""
        return [key.removeprefix(f"{prefix}.") for key in self._values[batch] if key.startswith(f"{prefix}.")]

    def __contains__(self, key: tuple[int, str]) -> bool:
        return key[1] in self._values[key[0]]

    def __getitem__(self, key: tuple[int, str]) -> Any:
        value = self._values[key[0]][key[1]]
        return torch.load(value, weights_only=False) if isinstance(value, Path) else value

    def __setitem__(self, key: tuple[int, str], value: Any) -> None:
        if key in self:
            return
        size = _bytes(value)
        if size and self._held + size > self._limit:
            self._number += 1
            file = self._folder / f"{self._number}.pt"
            if not isinstance(value, Together):
                value = pytree.tree_map_only(Tensor, torch.clone, value)  # not what a view is a part of
            torch.save(value, file)
            value = file
        else:
            self._held += size
        self._values[key[0]][key[1]] = value

    def __delitem__(self, key: tuple[int, str]) -> None:
        value = self._values[key[0]].pop(key[1])
        if isinstance(value, Path):
            value.unlink()
        else:
            self._held -= _bytes(value)


def _bytes(value: Any) -> int:
    leaves = tensor_leaves(value)
    return sum(leaf.numel() * leaf.element_size() for leaf in leaves)


class Stretch:
    """One network's nodes in the order in which they are run, and how far every batch has come."""

    def __init__(self, name: str, module: fx.GraphModule, order: Sequence[fx.Node], wanted: Mapping[str, int]):
        """`wanted`: for nodes whose value is asked for from outside, the last step at which it is."""
        self.name, self.module, self.order, self.at = name, module, order, 0
        self._interpreter = fx.Interpreter(module, garbage_collect_values=False)
        self._wanted = wanted
        self._nodes = {node.name: node for node in order}
        place = {node: index for index, node in enumerate(order)}
        self._last = {n.name: max((place[user] for user in n.users), default=-1) for n in order}
        writing = {node for node in order if writes_into_input(node, module)}
        self._separate = {node for node in writing if is_harmless(node, module)}
        memory: UnionFind = UnionFind(order)
        for node in order:
            if node.all_input_nodes and not (node in self._separate or is_fresh(node, module)):
                memory.union(node, *node.all_input_nodes)
        written = {memory[source] for node in writing - self._separate for source in node.all_input_nodes[:1]}
        self.entangled = frozenset(node.name for node in order if memory[node] in written)

    def node(self, name: str) -> fx.Node:
        """A node by its name."""
        return self._nodes[name]

    def run(self, batch: Batch, upto: int) -> None:
        """Compute the nodes from where all batches are up to, but without, a place in the order."""
        for index in range(self.at, upto):
            node = self.order[index]
            if node.op != "output":
                batch[self, node] = self._value(batch, node)
            for source in node.all_input_nodes:
                if self._last[source.name] == index and self._wanted.get(source.name, -1) < batch.step:
                    del batch[self, source]

    def keeps(self, name: str, step: int, upto: int) -> bool:
        """Whether a node's value is needed by a node from a place on, or asked for after a step."""
        return self._last[name] >= upto or self._wanted.get(name, -1) >= step

    def _value(self, batch: Batch, node: fx.Node) -> Any:
        if node.op == "placeholder":
            value = batch.argument(node)
            return pytree.tree_map_only(Tensor, torch.clone, value)  # some networks write into their input
        given: Any = fx.map_arg((node.args, node.kwargs), lambda n: batch[self, n])
        args, kwargs = given
        if node in self._separate:
            args = (args[0].clone(), *args[1:])
        return getattr(self._interpreter, node.op)(node.target, args, kwargs)

    def wanted(self, batch: Batch, name: str, selection: Selection | None) -> Tensor:
        """A node's value, or what another network has left of its channels."""
        value: Tensor = batch[self, self.node(name)]
        return value if selection is None else selection.of(value)

    def apply(self, batch: Batch, node: fx.Node, value: Tensor) -> Tensor:
        """What a node makes of another first argument."""
        given: Any = fx.map_arg((node.args[1:], node.kwargs), lambda n: batch[self, n])
        args, kwargs = given
        result: Tensor = getattr(self._interpreter, node.op)(node.target, (value, *args), kwargs)
        return result


class Batch:
    """The values of one batch during one step, and those that are on the shelf."""

    def __init__(self, shelf: Shelf, index: int, step: int, arguments: Callable[[], Mapping[str, Any]], seen: int):
        """`seen` is the number of images in the batches before."""
        self._shelf, self.index, self.step, self.seen = shelf, index, step, seen
        self._load, self._arguments = arguments, dict[str, Any]()
        self._values: dict[tuple[str, str], Any] = {}

    def __getitem__(self, key: tuple[Stretch, fx.Node]) -> Any:
        stretch, node = key
        name = (stretch.name, node.name)
        if name not in self._values:
            if node.name in stretch.entangled:
                self._gather(stretch)
            else:
                self._values[name] = self._shelf[self.index, ".".join(name)]
        return self._values[name]

    def __setitem__(self, key: tuple[Stretch, fx.Node], value: Any) -> None:
        self._values[key[0].name, key[1].name] = value

    def argument(self, node: fx.Node) -> Any:
        """What the network is called with."""
        if not self._arguments:
            self._arguments = dict(self._load())
        return self._arguments[node.name]

    def store(self, ends: Sequence[tuple[Stretch, int]]) -> None:
        """Put on the shelf what will be needed after this step, and take off it what will not."""
        for stretch, upto in ends:
            for name in self._shelf.names(self.index, stretch.name):
                if not stretch.keeps(name, self.step, upto):
                    del self._shelf[self.index, f"{stretch.name}.{name}"]
            self._gather(stretch)
            together = Together()
            for (owner, name), value in self._values.items():
                if owner == stretch.name and stretch.keeps(name, self.step, upto):
                    if name in stretch.entangled:
                        together[name] = value
                    else:
                        self._shelf[self.index, f"{owner}.{name}"] = value
            if together:
                self._shelf[self.index, f"{stretch.name}*"] = together

    def _gather(self, stretch: Stretch) -> None:
        """Take the values that share memory off the shelf, all at once."""
        key = (self.index, f"{stretch.name}*")
        if key in self._shelf:
            self._values |= {(stretch.name, name): value for name, value in self._shelf[key].items()}
            del self._shelf[key]

    def __delitem__(self, key: tuple[Stretch, fx.Node]) -> None:
        name = (key[0].name, key[1].name)
        self._values.pop(name, None)
        if (self.index, ".".join(name)) in self._shelf:
            del self._shelf[self.index, ".".join(name)]


class Lockstep:
    """An original and its rewritten network, and all batches, at the same place."""

    def __init__(self, original: Stretch, rewritten: Stretch, batches: Batches, shelf: Shelf):
        self.original, self.rewritten, self.images = original, rewritten, batches.images
        self._batches, self._shelf = batches, shelf

    def step(self, number: int, original_upto: int, rewritten_upto: int) -> Iterator[Batch]:
        """Every batch in turn, run up to these places in the two orders."""
        ends = ((self.original, max(original_upto, self.original.at)), (self.rewritten, rewritten_upto))
        seen = 0
        with torch.no_grad():
            for index, size in enumerate(self._batches.sizes):
                batch = Batch(self._shelf, index, number, partial(self._arguments, index), seen)
                seen += size
                for stretch, upto in ends:
                    with own_randomness(seed=index):
                        stretch.run(batch, upto)
                yield batch
                batch.store(ends)
        for stretch, upto in ends:
            stretch.at = max(stretch.at, upto)

    def _arguments(self, index: int) -> Mapping[str, Any]:
        """By the names of the placeholders."""
        module = self.original.module
        names = [node.name for node in module.graph.nodes if node.op == "placeholder"]
        return dict(zip(names, bound_arguments(module, self._batches[index]), strict=True))


def bound_arguments(module: fx.GraphModule, call: CallSpec) -> list[Any]:
    """The values of a graph's placeholders, in order."""
    bound = inspect.signature(module.forward).bind(*call.args, **call.kwargs)
    bound.apply_defaults()
    names = [str(node.target).lstrip("*") for node in module.graph.nodes if node.op == "placeholder"]
    return [bound.arguments[name] for name in names]


def writes_into_input(node: fx.Node, module: nn.Module) -> bool:
    """Whether a node may change the tensor that it reads."""
    if node.op == "call_module":
        return any(getattr(inner, "inplace", False) for inner in module.get_submodule(str(node.target)).modules())
    if node.op == "call_method":
        return str(node.target).endswith("_") and not str(node.target).endswith("__")
    name = getattr(node.target, "__name__", "")
    return bool(
        node.target in IN_PLACE
        or node.target is operator.setitem
        or node.kwargs.get("inplace")
        or (node.op == "call_function" and name.endswith("_") and not name.endswith("__"))
    )


def is_harmless(node: fx.Node, module: nn.Module) -> bool:
    """Whether nobody else reads the tensor that a node writes into, so that it may as well write into a copy."""
    source = node.args[0] if node.args else None
    if not isinstance(source, fx.Node) or set(source.users) != {node}:
        return False
    if writes_into_input(source, module):
        return is_harmless(source, module)
    return is_fresh(source, module)


def is_fresh(node: fx.Node, module: nn.Module) -> bool:
    """Whether a node's value surely shares no memory with what the node reads."""
    if node.op not in ("call_module", "call_function", "call_method") or writes_into_input(node, module):
        return False
    if node.op == "call_module":
        called = module.get_submodule(str(node.target))
        if altered(called):
            return False
        return isinstance(called, _FRESH) or type(called).__module__ == "torch.nn.modules.activation"
    return function_name(node) in _FRESH_FUNCTIONS
