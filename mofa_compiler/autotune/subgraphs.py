"""The piece of a network around a layer, as a small network of its own that can be timed."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, fx, nn

from ..analysis.fingerprint import architecture_hash
from ..analysis.layers import Layer, Site
from ..analysis.network import Network
from ..base.torch_state import own_randomness
from ..graph.call_spec import CallSpec
from ..graph.macs import node_macs
from ..graph.node_names import new_graph
from ..graph.program import Program
from ..nn.partial_conv import PartialConv2d
from ..rewriting import is_image
from ..rewriting.layer_surgery import origin

CONTEXT = 8
"""Channels of the 1x1 convolutions before and behind a piece, which make it start in the engine's own layout"""

WINOGRAD = 3
"""Side of the smallest kernel that Winograd's algorithm saves products of"""


@dataclass(frozen=True)
class Region:
    """Names, in the captured network, of the value that a piece reads and of the one that it gives.

    Where these are the same, it is nothing at all: only what stands around a piece.
    """

    start: str
    end: str


@dataclass(frozen=True)
class Piece:
    """A small network, and the tensors that it takes."""

    program: Program
    inputs: tuple[Tensor, ...]

    @property
    def module(self) -> fx.GraphModule:
        """What can be run."""
        return self.program.graph_module

    @cached_property
    def work(self) -> float:
        """Multiply-accumulates that no algorithm saves: of dense 3x3 convolutions, Winograd's does 4 of 9."""
        total = 0.0
        for node in self.program.graph.nodes:
            layer = self.program.modules.get(str(node.target)) if node.op == "call_module" else None
            layer = layer.conv if isinstance(layer, PartialConv2d) else layer
            dense = isinstance(layer, nn.Conv2d) and layer.groups == 1 and min(layer.kernel_size) >= WINOGRAD
            total += (node_macs(node, self.program) or 0) * (4 / 9 if dense else 1)
        return total

    @cached_property
    def fingerprint(self) -> str:
        """What it computes on which shapes, without its weights: these do not matter to time."""
        return f"{architecture_hash(self.program)} {' '.join('x'.join(map(str, x.shape)) for x in self.inputs)}"


def piece_around(layer: Layer, network: Network, reached: Collection[str] = ()) -> tuple[Region, Piece] | None:
    """A region around a layer, and the piece that it is; None where nothing can be cut out there.

    It goes from the convolution before the layer to the pointwise one behind it, and on to all calls of what is
    `reached`, by path, where these lie in one piece with it.
    """
    site = layer.sites[0]
    nodes = {node.name: node for node in network.program.graph.nodes}
    start, end = _start(site, nodes), _end(site, nodes)
    if start is None:
        return None
    calls = [node for node in nodes.values() if node.op == "call_module" and str(node.target) in reached]
    bounds: list[tuple[fx.Node | None, fx.Node | None]] = [(start, end)]
    if calls:
        sources = {call.args[0] for call in calls if isinstance(call.args[0], fx.Node)}
        bounds.insert(0, (_meeting({start, *sources}, forward=False), _meeting({end, *calls}, forward=True)))
    for first, last in bounds:
        if first is not None and last is not None and origin(first) and origin(last):
            where = Region(str(origin(first)), str(origin(last)))
            if (piece := extract(network.program, where)) is not None:
                return where, piece
    return None


def _meeting(nodes: Collection[fx.Node], *, forward: bool) -> fx.Node | None:
    """The first image that depends on all of these, or the last that all depend on; it may be one of them."""
    on_the_way = {node: {node} for node in nodes}
    node = min(nodes) if forward else max(nodes)
    while node.op not in ("output", "root"):
        found = on_the_way.setdefault(node, set())
        found.update(*(on_the_way.get(one, ()) for one in (node.all_input_nodes if forward else node.users)))
        if len(found) == len(nodes) and is_image(node) and origin(node):
            return node
        node = node.next if forward else node.prev
    return None


def _start(site: Site, nodes: Mapping[str, fx.Node]) -> fx.Node | None:
    first = site.node
    for step in site.before:
        if step.kind in ("conv", "other"):
            break
        first = nodes[step.node]
    source = first.args[0]
    return source if isinstance(source, fx.Node) else None


def _end(site: Site, nodes: Mapping[str, fx.Node]) -> fx.Node:
    last = site.node
    for step in site.behind:
        if step.kind == "other" or (step.kind == "conv" and not step.is_pointwise):
            break
        last = nodes[step.node]
        if step.kind == "conv":
            break
    return last


def extract(program: Program, where: Region) -> Piece | None:
    """A region between two 1x1 convolutions; None where it is not there any more.

    Weights are copied, and layers numbered, so that equal pieces of different places are equal. What else the region
    reads (a skip connection, a size) becomes an input, or a constant.
    """
    by_origin: dict[str, fx.Node] = {}
    for node in program.graph.nodes:
        name = origin(node)
        if name is not None:
            by_origin[name] = node
    start, end = by_origin.get(where.start), by_origin.get(where.end)
    if start is None or end is None:
        return None
    inner = [] if start is end else _between(start, end)
    if not inner and where.start != where.end:
        return None
    shapes = [start.meta["val"].shape, end.meta["val"].shape]
    if any(len(shape) != 4 for shape in shapes):
        return None
    graph, modules, inputs = new_graph(), dict[str, nn.Module](), list[Tensor]()
    dtype = start.meta["val"].dtype

    def context(name: str, source: fx.Node, before: int, behind: int) -> fx.Node:
        with own_randomness():
            modules[name] = nn.Conv2d(before, behind, 1).to(dtype)
        made = graph.call_module(name, (source,))
        made.meta["val"] = source.meta["val"].new_empty((batch, behind, *source.meta["val"].shape[2:]))
        return made

    def given(name: str, value: Tensor) -> fx.Node:
        inputs.append(_random(value.shape, value.dtype))
        node = graph.placeholder(name)
        node.meta["val"] = value
        return node

    def outside(node: fx.Node) -> object:
        value = node.meta.get("val")
        if not isinstance(value, Tensor):
            return value
        return given(f"also_{len(inputs)}", value)

    batch, channels, height, width = shapes[0]
    first = given("x", start.meta["val"].new_empty((batch, CONTEXT, height, width)))
    extra = {
        node: outside(node)
        for node in dict.fromkeys(n for one in inner for n in one.all_input_nodes)
        if node not in inner and node is not start and node.op != "get_attr"
    }
    new: dict[fx.Node, object] = {start: context("before", first, CONTEXT, channels), **extra}
    tensors: dict[str, Tensor] = {}
    names: dict[str, str] = {}
    for node in inner:
        for source in node.all_input_nodes:
            if source.op == "get_attr" and source not in new:
                name = names.setdefault(str(source.target), f"tensor_{len(names)}")
                tensors[name] = program.tensor(str(source.target)).detach().clone()
                new[source] = graph.get_attr(name)
        copied = graph.node_copy(node, lambda n: new[n])  # type: ignore[arg-type,return-value]
        new[node] = copied
        if node.op == "call_module":
            copied.target = names.setdefault(str(node.target), f"layer_{len(names)}")
            modules[copied.target] = copy.deepcopy(program.modules[str(node.target)])
    last = new[end]
    assert isinstance(last, fx.Node)
    graph.output(context("behind", last, shapes[1][1], CONTEXT))
    for module in modules.values():
        module.eval()
    return Piece(Program("Piece", graph, modules, tensors, {}, CallSpec(tuple(inputs), {})), tuple(inputs))


def _between(start: fx.Node, end: fx.Node) -> list[fx.Node]:
    """What depends on `start` and what `end` depends on, in order; nothing where `end` does not depend on `start`."""
    behind = {start}
    for node in start.graph.nodes:
        if behind.intersection(node.all_input_nodes):
            behind.add(node)
    needed, waiting = {end}, [end]
    while waiting:
        for source in waiting.pop().all_input_nodes:
            if source in behind and source is not start and source not in needed:
                needed.add(source)
                waiting.append(source)
    if end not in behind:
        return []
    return [node for node in start.graph.nodes if node in needed]


def _random(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    if not dtype.is_floating_point:
        return torch.zeros(shape, dtype=dtype)
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
