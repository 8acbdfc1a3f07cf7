"""Drop residual blocks.

A block adds a correction to what passes by it. Trained networks have blocks whose correction is small, and a network
without one of these is as deep as it has to be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, fx, nn

from mofa_compiler.analysis.network import Network
from mofa_compiler.rewriting import (
    FROZEN,
    Bypass,
    Fate,
    GraphPass,
    Pass,
    Phase,
    Portion,
    Rewiring,
    RoadmapError,
    Skip,
    Watch,
    origin,
)

from ._constant_values import called, pass_on, release
from ._random_fields import Fields
from ._residual_blocks import Block, path_of_sum, residual_blocks

OFFERED = 16
"""Blocks that a search tries, of those that change least"""

FIELDS = 4
"""How many random fields a block is tried on without calibration inputs"""


@dataclass(frozen=True, config=FROZEN)
class DropBlock(GraphPass):
    """Take away the residual blocks that change least of what they are added to.

    A block is x + f(x), with or without a scale, at one resolution and width. What it changes is the energy of f(x),
    relative to that of x: on calibration inputs, without these on random fields, by its weights. Behind the pass a
    calibration fits the layers that follow to what the network made with the block. A second run drops further ones.

    Options:
        drop: how many blocks go, which share of them, or `all`.
        blocks: the sums, by name in the graph, whose blocks go; found where there is a calibration and none is given.
    """

    name: ClassVar[str] = "drop-block"
    phase: ClassVar[Phase] = Phase.NARROW
    offered_under_bound: ClassVar[bool] = True
    per_layer: ClassVar[bool] = False

    drop: Annotated[int, Field(ge=1)] | Portion | Literal["all"] = 1
    blocks: tuple[str, ...] = ()

    @classmethod
    def example(cls) -> tuple[Pass, nn.Module, Tensor]:
        return cls(), _Residual(), torch.rand(1, 3, 16, 16)

    @classmethod
    def offer(cls) -> Pass:
        return cls(drop=OFFERED)

    def bypasses(self, network: Network) -> Sequence[Bypass]:
        every = {node: block for node, block in self._found(network).items() if isinstance(block, Block)}
        by = replace(self, drop="all", blocks=())
        found = []
        for node, block in every.items():
            source, value = origin(block.stream), origin(node)
            if source and value and (not self.blocks or value in self.blocks):
                inner = [every[one].path for one in block.nodes if one in every]
                gone = (*(str(one.target) for one in block.nodes if one.op == "call_module"), *inner)
                found.append(Bypass(block.path, "x + f(x)", source, value, gone, by))
        return found

    def prepare(self, network: Network) -> None:
        known = {origin(node) for node in network.program.graph.nodes}
        if unknown := next((name for name in self.blocks if name not in known), None):
            raise RoadmapError(f"{self.name}: blocks: the network has no value {unknown!r}", code="unknown-name")

    def informed(self, network: Network, watch: Watch) -> Pass:
        found = {node.name: block for node, block in self._found(network).items() if isinstance(block, Block)}
        if self.blocks or len(self._cheapest(dict.fromkeys(found, 0.0))) == len(found):
            return self
        energies = {name: [0.0, 0.0] for name in found}

        def told(name: str, reads: Sequence[Any]) -> None:
            first = found[name].sum.args[0] is found[name].stream
            for place_, value in enumerate(reads if first else reversed(reads)):
                energies[name][place_] += float(value.double().square().sum())

        watch(found, told)
        costs = {name: branch / max(stream, 1e-300) for name, (stream, branch) in energies.items()}
        return replace(self, blocks=tuple(self._cheapest(costs)))

    def rewire(self, wiring: Rewiring) -> None:
        found = self._found(wiring.network)
        blocks = {node: block for node, block in found.items() if isinstance(block, Block)}
        for node, why in found.items():
            if isinstance(why, Skip):
                wiring.refuse(path_of_sum(node), "add()", why)
        costs: dict[fx.Node, float] = {}
        if not self.blocks and self.drop != "all" and wiring.network.program.device.type != "meta":
            costs = {node: _cost(wiring, block) for node, block in blocks.items()}
        going = {node for node in blocks if origin(node) in self.blocks}
        if not self.blocks:
            going = {*(blocks if self.drop == "all" else self._cheapest(costs))}
        for node, block in blocks.items():
            if node in going:
                _drop(wiring, block, self._note(costs.get(node)))
            else:
                wiring.refuse(block.path, "add()", Skip("threshold", "others change less"))

    def _found(self, network: Network) -> dict[fx.Node, Block | Skip]:
        return {node: found for node, found in residual_blocks(network) if self.looks_at(path_of_sum(node))}

    def _cheapest(self, costs: Mapping[Any, float]) -> list[Any]:
        if self.drop == "all":
            return list(costs)
        count = self.drop if isinstance(self.drop, int) else round(self.drop * len(costs))
        return sorted(costs, key=costs.__getitem__)[:count]

    def _note(self, cost: float | None) -> str:
        if cost is not None:
            return f"adds {100 * cost:.2g} % of the energy, on random fields"
        return "adds least on calibration inputs" if self.blocks else ""


class _Residual(nn.Module):
    """Two residual blocks between two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)
        self.one, self.two = (nn.Sequential(nn.Conv2d(8, 16, 1), nn.GELU(), nn.Conv2d(16, 8, 1)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        y = y + self.one(y)
        result: Tensor = self.last(y + self.two(y))
        return result


def _cost(wiring: Rewiring, block: Block) -> float:
    """The energy of what a block adds, relative to what it is added to, on random fields."""
    fields = Fields(wiring, FIELDS, last=False)
    with torch.no_grad():
        x = fields.value(wiring.node_of[block.stream])
        for node in block.nodes:
            fields.compute(wiring.node_of[node])
        added = fields.value(wiring.node_of[block.branch])
    return float(added.square().sum() / x.square().sum())


def _drop(wiring: Rewiring, block: Block, note: str) -> None:
    node = wiring.node_of[block.sum]
    if node._erased:  # with a block that it was part of
        return
    stream = node.args[block.sum.args.index(block.stream)]  # which may be another by now
    assert isinstance(stream, fx.Node)
    gone = [wiring.node_of[one] for one in block.nodes]
    reads = [one for inner in gone for one in inner.all_input_nodes if one.op == "get_attr"]
    what = called(wiring, [*reversed(gone), *reads])
    pass_on(wiring, node, stream)
    release(wiring, what, f"part of the block behind {stream.name}")
    wiring.tell(block.path, "x + f(x)", "x", Fate.INHERITED, note=note)
