"""A program with its anatomy and its layers: what passes are carried out on."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Any

from torch import fx, nn

from ..base.words import quantity
from ..graph.macs import node_macs
from ..graph.program import Program
from .anatomy import Anatomy, Stage
from .layers import Layer, functional_convolutions, survey

CHEAP_BELOW = 0.5
"""Share of the median encoder stage below which a stage counts as cheap"""


@dataclass(frozen=True)
class Share:
    """What one stage holds: parameters, MACs, and MACs by the paper's estimate."""

    stage: str
    parameters: int
    macs: int
    vanilla: int


@dataclass(frozen=True)
class Totals:
    """Parameters and MACs of a network, whole and by stage."""

    parameters: int
    macs: int
    stages: tuple[Share, ...]


@dataclass(frozen=True)
class Network:
    """A program and the anatomy of the model that it came from, surveyed once."""

    program: Program
    anatomy: Anatomy

    @cached_property
    def layers(self) -> dict[str, Layer]:
        """Convolutions by path, in execution order."""
        return survey(self.program, self.anatomy)

    @cached_property
    def functional(self) -> list[Layer]:
        """Calls of functional convolutions, which no pass can rewrite, in execution order."""
        return functional_convolutions(self.program, self.anatomy)

    @cached_property
    def memo(self) -> dict[Hashable, Any]:
        """What passes found out about the network as a whole, by pass, so that they need not for every layer."""
        return {}

    @cached_property
    def without_values(self) -> Network:
        """The same network with its weights on the meta device: what passes make of it has every shape, and no value.

        On it a pass skips its fits, and what it declares exact, which nothing can be checked on, counts as not exact.
        """
        return Network(self.program.without_values(), self.anatomy)

    @cached_property
    def other_macs(self) -> dict[fx.Node, int]:
        """MACs of the calls that are none of `layers`, where there are any."""
        others = (n for n in self.program.graph.nodes if n.op != "output" and n.target not in self.layers)
        return {node: macs for node in others if (macs := node_macs(node, self.program))}

    @cached_property
    def totals(self) -> Totals:
        program, anatomy, layers = self.program, self.anatomy, self.layers
        sums = {stage.name: [0, 0, 0] for stage in anatomy.stages}
        seen: set[int] = set()

        def share(path: str) -> list[int]:
            stage = anatomy.stage_of(path)
            return sums.setdefault(stage.name if stage else "other", [0, 0, 0])

        for path, module in program.modules.items():
            new = {id(p): p.numel() for p in module.parameters() if id(p) not in seen}
            seen |= new.keys()
            if new:
                share(path)[0] += sum(new.values())
        for path, tensor in program.tensors.items():
            if isinstance(tensor, nn.Parameter) and id(tensor) not in seen:
                seen.add(id(tensor))
                share(path)[0] += tensor.numel()
        for path, layer in layers.items():
            share(path)[1] += layer.macs
            share(path)[2] += layer.vanilla
        for node, macs in self.other_macs.items():
            stack = list((node.meta.get("nn_module_stack") or {"": ("", None)}).values())
            share(stack[-1][0])[1] += macs
        return Totals(
            parameters=sum(s[0] for s in sums.values()),
            macs=sum(s[1] for s in sums.values()),
            stages=tuple(Share(name, *values) for name, values in sums.items()),
        )

    @cached_property
    def cheap_reference(self) -> float:
        """Median of the encoder stages' MACs by the paper's estimate; 0 without encoders."""
        costs = {share.stage: share.vanilla for share in self.totals.stages}
        encoders = [costs[stage.name] for stage in self.anatomy.stages if stage.kind == "encoder"]
        return float(median(encoders)) if encoders else 0.0

    def is_cheap(self, stage: Stage, below: float = CHEAP_BELOW) -> tuple[bool, str]:
        """Whether a stage costs less than `below` of the median encoder stage, and a sentence that says so.

        By the paper's estimate (Figure 4); stem, head and what is no stage of a U-Net never count as cheap.
        """
        if not self.anatomy.is_unet:
            return False, f"the network is no U-Net ({self.anatomy.reason})"
        if stage.kind not in ("encoder", "bottleneck", "decoder"):
            return False, f"{stage.name} is never widened"
        cost = next(share.vanilla for share in self.totals.stages if share.stage == stage.name)
        limit = below * self.cheap_reference
        comparison = "<" if cost < limit else "≥"
        share = f"{below:g} of the median encoder stage"
        word = "cheap" if cost < limit else "not cheap"
        return cost < limit, f"{stage.name} is {word}: {quantity(cost)} {comparison} {quantity(limit)} ({share})"
