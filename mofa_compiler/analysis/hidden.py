"""Hidden channels: those that one layer makes and others take up, so that nothing else notices where some are gone."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, fx, nn

from ..graph.macs import function_name
from ..graph.node_names import describe
from ..graph.plain_layers import altered, is_torchs
from .channels import Axis, Channels, Positions
from .layers import readers
from .network import Network

_DENSE = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
_POOLS = (nn.AdaptiveAvgPool2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d, nn.MaxPool2d)


@dataclass(frozen=True)
class Reading:
    """A call of a layer that mixes hidden channels.

    Attributes:
        path: of the layer.
        value: what it reads.
        seen: the same before it was pooled to one pixel; else `value` itself.
    """

    path: str
    value: fx.Node
    seen: fx.Node


@dataclass(frozen=True, eq=False)
class Hidden:
    """Channels between the layer at `path`, which makes them, and those that take them up.

    They come in classes, of which one stays or goes as a whole: both halves of a gate, all channels of a group.

    Attributes:
        path: the first layer that makes them.
        number, orbit: of the set of classes, as `Channels` has them.
        nodes: all that has them, in execution order: also those that cut a value into several.
        values: those that are tensors, which hold nothing else, with the class of each channel.
        axes: along which weights run, with the class of each position.
        readings: what takes them up.
        last: whether they lie along the last dimension.
    """

    path: str
    number: int
    orbit: Positions
    nodes: tuple[fx.Node, ...]
    values: Mapping[fx.Node, Positions]
    axes: Mapping[Axis, Positions]
    readings: tuple[Reading, ...]
    last: bool

    @property
    def measured(self) -> tuple[Reading, ...]:
        """The readings by which a channel's worth is measured: those pixel by pixel, where there are any."""
        return tuple(one for one in self.readings if one.seen is one.value) or self.readings

    def width(self, reading: Reading) -> int:
        """How many channels of each class a layer reads."""
        return len(self.values[reading.value]) // len(self.orbit)

    def first(self, count: int) -> Positions:
        """The places in the orbit of those classes that come first in what a layer reads."""
        return np.argsort(self.blocks(self.measured[0].value)[:, 0], kind="stable")[:count]

    def blocks(self, node: fx.Node) -> Positions:
        """(classes, channels of each): where the classes of the orbit, in its order, are in a value."""
        return np.stack([np.flatnonzero(self.values[node] == one) for one in self.orbit])


@dataclass(frozen=True)
class Held:
    """Why the channels that a layer makes have to stay: a short stable code, and the same in words."""

    code: str
    reason: str


def hidden_channels(network: Network) -> Mapping[str, Hidden | Held]:
    """What each dense layer makes, by its path; of several that make the same channels the first one has them."""
    found: Mapping[str, Hidden | Held] | None = network.memo.get("hidden channels")
    if found is None:
        found = network.memo["hidden channels"] = dict(_Search(network).run())
    return found


class _Search:
    def __init__(self, network: Network):
        self.network, self.program = network, network.program
        self.channels = channels = Channels(network.program)
        self.ends = network.anatomy.input_paths | network.anatomy.output_paths
        self.place = {node: index for index, node in enumerate(network.program.graph.nodes)}
        self.calls = Counter(str(node.target) for node in self.place if node.op == "call_module")
        self.number = {int(one): index for index, orbit in enumerate(channels.orbits) for one in orbit}
        self.values: dict[int, list[fx.Node]] = defaultdict(list)
        for node, classes in channels.values.items():
            for index in {self.number.get(one, -1) for one in classes.tolist()}:
                self.values[index].append(node)
        self.axes: dict[int, list[Axis]] = defaultdict(list)
        for axis, classes in channels.axes.items():
            for index in {self.number.get(one, -1) for one in classes.tolist()}:
                self.axes[index].append(axis)

    def run(self) -> Iterator[tuple[str, Hidden | Held]]:
        seen, taken = set[str](), set[int]()
        for node in self.place:
            module = self.program.modules[str(node.target)] if node.op == "call_module" else None
            path = str(node.target)
            if not isinstance(module, _DENSE) or getattr(module, "groups", 1) > 1 or path in seen:
                continue
            seen.add(path)
            found = self._what(path, node, module)
            if isinstance(found, Held):
                yield path, found
            elif found.number not in taken:
                taken.add(found.number)
                yield path, found

    def _what(self, path: str, node: fx.Node, module: nn.Module) -> Hidden | Held:
        classes = self.channels.values.get(node)
        if not is_torchs(module, nn.Module):
            reason = altered(module)
            return Held("altered", reason) if reason else Held("subclass", f"is a {type(module).__name__}")
        if classes is None:
            return Held("unbatched", "makes no batch of images or rows")
        if held := self._moves(classes, node):
            return held
        number = self.number[int(classes[0])]
        orbit, values, axes = self.channels.orbits[number], dict.fromkeys(self.values[number]).keys(), self.axes[number]
        whole = [*(self.channels.values[one] for one in values), *(self.channels.axes[axis] for axis in axes)]
        apart = any(set(some.tolist()) - set(orbit.tolist()) for some in whole)
        if apart or not all(self._cuts_evenly(one) for one in values):
            return Held(
                "parts", "what it makes is cut into parts, or joined with others, of which each goes its own way"
            )
        cut = {user for one in values for user in one.users if isinstance(user.meta.get("val"), (tuple, list))}
        cut = {one for one in cut if not values.isdisjoint(one.users)}
        readings = tuple(self._readings(values, axes))
        if held := self._neighbours(path, values, axes, readings):
            return held
        return Hidden(
            path,
            number,
            orbit,
            tuple(sorted({*values, *cut}, key=self.place.__getitem__)),
            {one: self.channels.values[one] for one in values},
            {axis: self.channels.axes[axis] for axis in axes},
            readings,
            node in self.channels.last,
        )

    def _cuts_evenly(self, node: fx.Node) -> bool:
        """Whether a slice of channels takes the same ones when some are gone, with bounds in the same proportion."""
        index = node.args[1] if function_name(node) == "getitem" else None
        source = self.channels.values.get(node.args[0]) if index is not None else None  # type: ignore[arg-type]
        if source is None or not isinstance(index, tuple) or len(index) < 2:
            return True
        assert isinstance(index[1], slice)
        start, stop, step = index[1].indices(len(source))
        every = np.unique(source)
        counts = [(source[:end, None] == every).sum(0) for end in (start, stop)]
        return step == 1 and all(len(np.unique(count)) == 1 for count in counts)

    def _moves(self, classes: Positions, node: fx.Node) -> Held | None:
        """Why channels cannot be told apart, or are no hidden ones."""
        mine = {int(one) for one in classes}
        if mine & self.channels.summed:
            return Held("stream", "what it makes is added to what others make: a residual stream keeps its width")
        if mine & self.channels.joined:
            return Held("stream", "what it makes is joined with what others make: a skip connection keeps its width")
        if causes := [self.channels.fixed[one] for one in mine if one in self.channels.fixed]:
            cause = min(causes, key=self.place.__getitem__)
            if cause is node:
                return Held("tied", "shares a parameter with something else, or reads another dimension than channels")
            if cause.op == "output":
                return Held("stream", "makes what the network returns")
            return Held("between", f"what it makes goes to {describe(cause)}, where every channel has its place")
        if int(classes[0]) not in self.number:
            return Held("one-channel", "makes a single channel, or group of channels")
        return None

    def _readings(self, values: Collection[fx.Node], axes: Sequence[Axis]) -> Iterator[Reading]:
        mixing = {axis.path for axis in axes if axis.reads}
        users = {user for one in values for user in one.users if user.op == "call_module"}
        for node in sorted(users, key=self.place.__getitem__):
            if str(node.target) in mixing:
                value = seen = node.args[0]
                assert isinstance(value, fx.Node) and isinstance(seen, fx.Node)
                while _pools(seen, self.program.modules):
                    seen = seen.args[0]
                    assert isinstance(seen, fx.Node)
                yield Reading(str(node.target), value, seen)

    def _neighbours(
        self, path: str, values: Collection[fx.Node], axes: Sequence[Axis], readings: Sequence[Reading]
    ) -> Held | None:
        """What around the channels keeps them from being taken away."""
        called = [str(node.target) for node in values if node.op == "call_module"]
        along = {axis.path for axis in axes}
        paths = dict.fromkeys([*called, *(axis.path for axis in axes if axis.path in self.program.modules)])
        making = {axis.path for axis in axes if not axis.reads}
        if all(reading.path in making for reading in readings):
            return Held("no-neighbour", "no layer takes up what it makes")
        here = Counter(str(node.target) for node in {*values, *(user for node in values for user in node.users)})
        for one in paths:
            if self.calls[one] > here[one] and (one in along or counts_channels(self.program.modules[one])):
                return Held("called-twice", f"{one} is called elsewhere, too, where it reads other channels")
            if one in self.ends and one != path:
                return Held("neighbour-held", f"{one} is the network's input or output convolution")
            if any(parameter.is_complex() for parameter in self.program.modules[one].parameters()):
                return Held("complex", f"{one} has complex weights")
        if path in self.ends:
            return Held("input", "is the input convolution")
        if any(len(node.users) > len(readers(node)) for node in values):
            return Held("size-asked", "the size of what it makes is asked for")
        if all(_is_single_pixel(node) for node in values):
            return Held("place", "makes a single pixel, which costs next to nothing")
        return None


def counts_channels(module: nn.Module) -> bool:
    """Whether a module that has as many channels as it reads knows their number, even without weights."""
    return hasattr(module, "num_features") or hasattr(module, "num_channels")


def _is_single_pixel(node: fx.Node) -> bool:
    value = node.meta["val"]
    return bool(value.dim() == 4 and value.shape[2:].numel() == 1)


def _pools(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    """Whether a node makes one pixel of each channel of an image."""
    source: Any = node.args[0] if node.args else None
    if not isinstance(source, fx.Node) or not isinstance(source.meta.get("val"), Tensor) or not _is_single_pixel(node):
        return False
    if node.op == "call_module":
        return isinstance(modules[str(node.target)], _POOLS)
    return function_name(node) in ("mean", "adaptive_avg_pool2d", "avg_pool2d")
