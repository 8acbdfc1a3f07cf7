"""Rules 5xx: budgets that a change has broken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, ClassVar

from ..finding import Finding, Level
from ..rule import Rule, Subject

if TYPE_CHECKING:
    from torch import nn

    from ...analysis.anatomy import Anatomy
    from ...runtime import Compiled

TURNS = 5
"""How often both networks are profiled, to compare their stages"""


@dataclass(frozen=True)
class _Budget(Rule):
    level: ClassVar[Level] = "error"
    unit: ClassVar[str]

    def compared(
        self, subject: Subject, what: str, used: float, limit: float | None, stage: str = ""
    ) -> Iterator[Finding]:
        """A finding where more is used than allowed."""
        if limit is not None and used > limit:
            where = f" in {stage}" if stage else ""
            text = f"{_number(used)} {self.unit}{where}, {used / limit - 1:.1%} over the budget of {_number(limit)}"
            yield self.finding(subject, "", f"{what}({stage})", text, stage=stage or None)


@dataclass(frozen=True)
class _Counted(_Budget):
    """Of what the network's totals have, whole and by stage."""

    what: ClassVar[str]

    def check(self, subject: Subject) -> Iterator[Finding]:
        budgets, totals = subject.budgets, subject.network.totals
        opaque = ", ".join(subject.network.program.opaque)
        if opaque and self.what == "macs" and (budgets.macs is not None or budgets.stages):
            text = f"the budget cannot be checked: {opaque} cannot be seen into, and its MACs are not counted"
            yield self.finding(subject, "", "macs(opaque)", text)
        yield from self.compared(subject, self.what, getattr(totals, self.what), getattr(budgets, self.what))
        for share in totals.stages:
            if share.stage in budgets.stages:
                limit = getattr(budgets.stages[share.stage], self.what)
                yield from self.compared(subject, self.what, getattr(share, self.what), limit, share.stage)


@dataclass(frozen=True)
class TooManyParameters(_Counted):
    """More parameters than the budget allows.

    ## What it does
    Compares the parameters of the network, and of each stage that has a budget, with `budgets.parameters`.

    ## Why is this bad?
    The file to be shipped grows with them.

    ## Example
    ```toml
    [tool.mofa.budgets]
    parameters = "1.2M"
    ```

    ## Fix safety
    There is no fix by machine.
    """

    code: ClassVar[str] = "MOFA501"
    name: ClassVar[str] = "too-many-parameters"
    unit: ClassVar[str] = "parameters"
    what: ClassVar[str] = "parameters"


@dataclass(frozen=True)
class TooManyMacs(_Counted):
    """More multiply-accumulates than the budget allows.

    ## What it does
    Compares the MACs of one forward pass, and of each stage that has a budget, with `budgets.macs`.

    ## Why is this bad?
    Time and energy grow with them, if not in proportion.

    ## Example
    ```toml
    [[tool.mofa.models]]
    target = "net.py:Net"
    input = "1x3x256x256"
    budgets = { macs = "2G", stages = { "encoder 1" = { macs = "400M" } } }
    ```

    ## Fix safety
    There is no fix by machine.
    """

    code: ClassVar[str] = "MOFA502"
    name: ClassVar[str] = "too-many-macs"
    unit: ClassVar[str] = "MACs"
    what: ClassVar[str] = "macs"


@dataclass(frozen=True)
class TooMuchMemory(_Budget):
    """More memory for activations than the budget allows.

    ## What it does
    Adds up the bytes of all values that are alive at once in a forward pass without gradients, and compares the peak
    with `budgets.activation-memory`; of a stage that has a budget, the peak while it runs, with what waits for later
    stages. Weights are not counted.

    ## Why is this bad?
    Phones kill what takes too much, and what does not fit into a cache is slow.

    ## Example
    ```toml
    [tool.mofa.budgets]
    activation-memory = "20MB"
    ```

    ## Fix safety
    There is no fix by machine.
    """

    code: ClassVar[str] = "MOFA503"
    name: ClassVar[str] = "too-much-memory"
    unit: ClassVar[str] = "bytes of activations"

    def check(self, subject: Subject) -> Iterator[Finding]:
        limits = {name: one.activation_memory for name, one in subject.budgets.stages.items()}
        if subject.budgets.activation_memory is None and not any(limits.values()):
            return
        from ...analysis.activation_memory import peak_activation
        from ...graph.node_names import path_of

        program, anatomy = subject.network.program, subject.network.anatomy
        peak = peak_activation(program)
        for found in self.compared(subject, "memory", peak.bytes, subject.budgets.activation_memory):
            yield replace(found, message=f"{found.message}, at {peak.path or peak.node}")
        most: dict[str, int] = {}
        for node in program.graph.nodes:
            path = str(node.target) if node.op == "call_module" else path_of(node)
            stage = anatomy.stage_of(path) if node.name in peak.live else None
            if stage is not None:
                most[stage.name] = max(most.get(stage.name, 0), peak.live[node.name])
        for name, used in most.items():
            yield from self.compared(subject, "memory", used, limits.get(name), name)


@dataclass(frozen=True)
class TooSlow(_Budget):
    """Slower than the reference by more than the budget allows.

    ## What it does
    Times the network against the model's `reference` (a target or a bundle) on the configured engine, both in turns in
    one process, and compares the ratio of medians with `budgets.latency-ratio`. What lies within the noise is no
    finding. Of a stage that has a budget, the time of its layers is compared with that of the reference's stage of the
    same name, profiled in turns; it is a finding where every turn says so.

    ## Why is this bad?
    Fewer MACs are not less time: only the clock of the engine that ships can tell.

    ## Example
    ```toml
    [tool.mofa]
    engine = "onnxruntime"

    [[tool.mofa.models]]
    target = "net.py:Net"
    reference = "release/net-1.0"
    budgets = { latency-ratio = 1.0 }
    ```

    ## Fix safety
    There is no fix by machine; `mofa rewrite --engine` looks for a faster network.
    """

    code: ClassVar[str] = "MOFA504"
    name: ClassVar[str] = "too-slow"
    unit: ClassVar[str] = "of the reference's time"
    needs_engine: ClassVar[bool] = True

    engine: str | None = None
    threads: int = 1

    def check(self, subject: Subject) -> Iterator[Finding]:
        if subject.budgets.latency is None or self.engine is None or subject.reference is None:
            return
        reference = subject.reference()
        yield from self._whole(subject, reference)
        yield from self._stages(subject, reference)

    def _whole(self, subject: Subject, reference: nn.Module) -> Iterator[Finding]:
        limit = subject.budgets.latency_ratio
        if limit is None:
            return
        from ...runtime import measure

        assert self.engine is not None
        networks = (subject.model, reference)
        measured = measure(*networks, engine=self.engine, threads=self.threads, example_inputs=subject.inputs())
        low, high = measured.interval
        if low > limit:
            text = (
                f"{measured.ratio:.2f} ({low:.2f} to {high:.2f}) of the reference's time on {self.engine}, over the "
                f"budget of {limit:g}"
            )
            yield self.finding(subject, "", f"latency({self.engine})", text)

    def _stages(self, subject: Subject, reference: nn.Module) -> Iterator[Finding]:
        limits = {name: one.latency_ratio for name, one in subject.budgets.stages.items() if one.latency_ratio}
        if not limits:
            return
        from ...analysis.anatomy import infer
        from ...frontend import capture
        from ...runtime import engine

        chosen, inputs = engine(str(self.engine)), subject.inputs()
        anatomies = (subject.network.anatomy, infer(capture(reference, subject.call)))
        compiled = [chosen.compile(network, inputs, self.threads) for network in (subject.model, reference)]
        turns = []
        with chosen.running(self.threads):
            for _ in range(TURNS):
                turns.append([_by_stage(one, anatomy) for one, anatomy in zip(compiled, anatomies, strict=True)])
        for name, limit in limits.items():
            times = [(mine.get(name, 0.0), theirs.get(name, 0.0)) for mine, theirs in turns]
            if not all(min(pair) > 0 for pair in times):
                text = f"the budget cannot be checked: {self.engine} tells no time of {name} in both networks"
                yield self.finding(subject, "", f"latency({self.engine}, {name})", text, stage=name)
                continue
            ratios = sorted(mine / theirs for mine, theirs in times)
            if ratios[0] > limit:
                text = (
                    f"{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) of the reference's time in {name} on "
                    f"{self.engine}, over the budget of {limit:g}"
                )
                yield self.finding(subject, "", f"latency({self.engine}, {name})", text, stage=name)


def _by_stage(compiled: Compiled, anatomy: Anatomy) -> dict[str, float]:
    """ms of the layers of each stage, where the engine can tell."""
    times: dict[str, float] = {}
    for operator in compiled.profile() or ():
        stage = anatomy.stage_of(operator.layer) if operator.layer else None
        if stage is not None:
            times[stage.name] = times.get(stage.name, 0.0) + (operator.ms or 0.0)
    return times


def _number(value: float) -> str:
    return f"{value:,.0f}"
