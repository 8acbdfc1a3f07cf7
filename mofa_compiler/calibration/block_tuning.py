"""Blocks of a rewritten network tuned by gradient against what the same blocks of the original give."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from ..base.progress import Progress
from ..graph.node_names import new_graph
from ..graph.program import Program
from ..nn.partial_conv import PartialConv2d
from ..rewriting.layer_surgery import origin, selection
from .batches import Batches
from .lockstep import Batch, Lockstep, Shelf, Stretch
from .plan import Plan

LEARNING_RATE = 1e-2
"""Of Adam at its highest, in units of a parameter's root mean square"""

WARMING_UP = 2
"""Steps in which the learning rate rises, at least: torch divides by one less"""

LAYERS = 24
"""Convolutions in a block, at least: on PMRID, 4 gain 0.17 dB, 10 0.25 dB and 24 0.27 dB"""


@dataclass(frozen=True)
class Block:
    """Consecutive nodes of the rewritten network's order, from `start` up to `end`, what goes in and what comes out.

    `paths` are the convolutions in it whose values may differ from the original's.
    """

    start: int
    end: int
    inputs: tuple[fx.Node, ...]
    outputs: tuple[fx.Node, ...]
    paths: tuple[str, ...]


def blocks(program: Program, order: Sequence[fx.Node], differing: Set[fx.Node]) -> Iterator[Block]:
    """The order, cut where all that is still needed stands for values of the original network."""
    index = {node: place for place, node in enumerate(order)}
    last = [max((index[user] for user in node.users), default=-1) for node in order]
    alive: dict[fx.Node, None] = {}
    between: set[fx.Node] = set()  # behind a partial convolution, up to what takes up what that leaves undone
    start = next((place for place, node in enumerate(order) if node.op != "placeholder"), len(order))
    paths: dict[str, None] = {}
    for place, node in enumerate(order):
        alive = {n: None for n in alive if last[index[n]] > place}
        if last[place] > place and isinstance(node.meta.get("val"), Tensor):
            alive[node] = None
        module = program.modules[str(node.target)] if node.op == "call_module" else None
        partial = isinstance(module, PartialConv2d) or (isinstance(module, nn.Conv2d) and module.groups > 1)
        if partial or (not isinstance(module, nn.Conv2d) and between.intersection(node.all_input_nodes)):
            between.add(node)
        if node in differing and isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, PartialConv2d)):
            paths[str(node.target)] = None
        finished = place + 1 < len(order) and order[place + 1].op == "output"
        if finished or (len(paths) >= LAYERS and all(origin(n) and n not in between for n in alive)):
            inner = order[start : place + 1]
            inputs = dict.fromkeys(s for n in inner for s in n.all_input_nodes if index[s] < start)
            outputs = tuple(n for n in inner if n in alive and origin(n) and n not in between and _is_real(n))
            if paths and outputs:
                yield Block(start, place + 1, tuple(inputs), outputs, tuple(paths))
            start, paths = place + 1, {}


class Tuning:
    """Adam on the convolutions of one block; the loss is its squared error relative to the original's values."""

    def __init__(self, program: Program, order: Sequence[fx.Node], block: Block, steps: int):
        self.block, self.module = block, _module(program, order, block).eval()
        found = (p for path in block.paths for p in program.modules[path].parameters() if p.is_floating_point())
        self.parameters = list({id(p): p for p in found}.values())
        self._needed = [p.requires_grad for p in self.parameters]
        sizes = [max(float(p.detach().square().mean().sqrt()), 1e-8) for p in self.parameters]
        groups = [{"params": [p], "lr": LEARNING_RATE * s} for p, s in zip(self.parameters, sizes, strict=True)]
        self._optimizer = torch.optim.Adam(groups)
        total = max(steps, 2 * WARMING_UP)
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimizer,
            [LEARNING_RATE * size for size in sizes],
            total_steps=total,
            pct_start=max(0.1, WARMING_UP / total),
        )
        self._before = [p.detach().clone() for p in self.parameters]

    def loss(self, networks: Lockstep, batch: Batch) -> Tensor:
        """Of one batch; each output counts the same."""
        inputs = [batch[networks.rewritten, node] for node in self.block.inputs]
        inputs = pytree.tree_map_only(Tensor, torch.clone, inputs)  # some layers write into their input
        total = torch.zeros(())
        for node, got in zip(self.block.outputs, self.module(*inputs), strict=True):
            wanted = networks.original.wanted(batch, str(origin(node)), selection(node)).float()
            energy = wanted.square().sum().clamp_min(torch.finfo(wanted.dtype).tiny)
            total = total.to(wanted.device) + (got.float() - wanted).square().sum() / energy
        return total

    def step(self, networks: Lockstep, batch: Batch) -> None:
        """One step of Adam on one batch."""
        with torch.enable_grad():
            for parameter in self.parameters:
                parameter.requires_grad_(True)
            loss = self.loss(networks, batch)
            self._optimizer.zero_grad()
            if not loss.requires_grad or not bool(torch.isfinite(loss)):
                return
            loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._schedule.step()

    def finish(self, better: bool) -> None:
        """Keep what was learned, or go back to the start."""
        with torch.no_grad():
            for parameter, before, needed in zip(self.parameters, self._before, self._needed, strict=True):
                parameter.grad = None
                parameter.requires_grad_(needed)
                if not better:
                    parameter.copy_(before)


def tune_blocks(
    original: Program,
    program: Program,
    plan: Plan,
    fitting: Batches,
    held_out: Batches,
    folder: Path,
    steps: int,
    tell: Progress,
) -> None:
    """Tune block after block, a step a batch, and keep of each what came closer on what was held out."""
    nodes = list(original.graph.nodes)
    found = list(blocks(program, plan.order, plan.differing))
    place = {node.name: index for index, node in enumerate(nodes)}
    wanted: Mapping[str, dict[str, int]] = {"original": {}, "rewritten": {}}
    for number, block in enumerate(found):
        wanted["original"] |= {str(origin(node)): number for node in block.outputs}
        wanted["rewritten"] |= {node.name: number for node in block.inputs}
    networks = Lockstep(
        Stretch("original", original.graph_module, nodes, wanted["original"]),
        Stretch("rewritten", program.graph_module, plan.order, wanted["rewritten"]),
        fitting.together(held_out),
        Shelf(folder),
    )
    rounds = max(1, math.ceil(steps / len(fitting)))
    for number, block in enumerate(found):
        tuning = Tuning(program, plan.order, block, rounds * len(fitting))
        upto = max(place[str(origin(node))] for node in block.outputs) + 1
        losses = [0.0, 0.0]
        for index in range(rounds + 2):
            tell(f"tuning up to {block.paths[-1]}", number * (rounds + 2) + index, len(found) * (rounds + 2))
            for batch in networks.step(number, upto, block.start):
                if batch.index < len(fitting) and 0 < index <= rounds:
                    tuning.step(networks, batch)
                elif batch.index >= len(fitting) and not 0 < index <= rounds:
                    losses[index > 0] += float(tuning.loss(networks, batch))
        tuning.finish(better=losses[1] < losses[0])


def _module(program: Program, order: Sequence[fx.Node], block: Block) -> fx.GraphModule:
    """A block as a module of its own, which shares its layers with the program."""
    graph = new_graph()
    new: dict[fx.Node, fx.Node] = {node: graph.placeholder(node.name) for node in block.inputs}
    for node in order[block.start : block.end]:
        new[node] = graph.node_copy(node, new.__getitem__)
    graph.output(tuple(new[node] for node in block.outputs))
    called = {str(node.target) for node in graph.nodes if node.op == "call_module"}
    read = {str(node.target) for node in graph.nodes if node.op == "get_attr"}
    return fx.GraphModule(
        {**{path: program.modules[path] for path in called}, **{path: program.tensor(path) for path in read}}, graph
    )


def _is_real(node: fx.Node) -> bool:
    value = node.meta["val"]
    return isinstance(value, Tensor) and value.is_floating_point()
