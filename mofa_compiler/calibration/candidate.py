"""A network that a calibration may return: the passes' with other weights, and what it takes to fit them."""

from __future__ import annotations

import copy
from collections.abc import Container, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from ..analysis.channel_order import Orders
from ..analysis.network import Network
from ..base.progress import Progress
from ..nn.partial_conv import PartialConv2d
from ..numerics.running import evaluating
from ..rewriting.pass_api import Skip
from .batches import Batches
from .fit_base import Fit
from .lockstep import Lockstep, Shelf, Stretch
from .plan import Plan, Planner
from .sufficiency import few_pixels

_TUNED = (nn.Conv2d, nn.ConvTranspose2d, PartialConv2d)


@dataclass(frozen=True)
class Candidate:
    """The networks after every pass, and the last of them with other weights.

    `original` has its channels in the order of `orders`. `notes` and `refused` say what came of fits, and why there are
    none, by path.
    """

    original: Network
    passes: Sequence[Network]
    final: Network
    orders: Orders
    notes: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, Skip] = field(default_factory=dict)

    def changed(self, stack: ExitStack) -> Candidate:
        """The same with weights of its own, in eval mode until the stack is left."""
        new = replace(self, final=_copied(self.final))
        stack.enter_context(evaluating(new.final.program.graph_module))
        return new

    def plan(self, *, repeated: bool = True) -> Plan:
        return Planner(self.original.program, self.final, self.passes[-1].program, repeated=repeated).make()

    @property
    def tunable(self) -> list[nn.Parameter]:
        """Those of the convolutions whose values may differ from the original's."""
        plan = self.plan()
        calls = [node for node in plan.order if node in plan.differing and node.op == "call_module"]
        modules = [self.final.program.modules[str(node.target)] for node in calls]
        tuned = [module for module in modules if isinstance(module, _TUNED)]
        parameters = (p for module in tuned for p in module.parameters() if p.is_floating_point())
        return list({id(parameter): parameter for parameter in parameters}.values())

    @property
    def repeats(self) -> bool:
        """Whether layers that are called several times are among those that can be fitted."""
        return len(self.plan(repeated=False).steps) < len(self.plan().steps)

    def fitted(
        self,
        batches: Batches,
        folder: Path,
        tell: Progress,
        *,
        repeated: bool = True,
        only: Container[str] | None = None,
    ) -> Candidate:
        """Every layer fitted in closed form, in execution order; `repeated`: also those that are called several times.

        `only`: layers at these paths alone. Its weights are changed.
        """
        module, nodes = self.original.program.graph_module, list(self.original.program.graph.nodes)
        plan = self.plan(repeated=repeated)
        networks = Lockstep(
            Stretch("original", module, nodes, plan.wanted["original"]),
            Stretch("rewritten", self.final.program.graph_module, plan.order, plan.wanted["rewritten"]),
            batches,
            Shelf(folder),
        )
        notes: dict[str, str] = {}
        for number, step in enumerate(plan.steps):
            if only is not None and not any(path in only for path in step.fit.paths):
                continue
            tell(f"fitting {step.fit.paths[-1]}", number, len(plan.steps))
            note = _fitted(step.fit, networks, number, step.original, step.rewritten)
            note += few_pixels(step.fit.seen, step.fit.unknowns)
            notes |= dict.fromkeys(step.fit.paths, note)
        return replace(self, notes=notes, refused=plan.refused)


def _copied(network: Network) -> Network:
    """A network whose weights may be changed without changing another one's."""
    memo: dict[int, Any] = {}
    modules = {path: copy.deepcopy(module, memo) for path, module in network.program.modules.items()}
    return Network(replace(network.program, modules=modules), network.anatomy)


def _fitted(fit: Fit, networks: Lockstep, number: int, original_upto: int, rewritten_upto: int) -> str:
    for index in range(fit.rounds):
        for batch in networks.step(number, original_upto, rewritten_upto):
            fit.observe(networks, batch)
        gain = fit.update(index == fit.rounds - 1)
        if gain is not None:
            return str(gain)
    raise AssertionError
