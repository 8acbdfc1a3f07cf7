"""Rules 5xx: budgets that a change has broken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from ..finding import Finding, Level
from ..rule import Rule, Subject


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
    with `budgets.activation-memory`. Weights are not counted.

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
        if subject.budgets.activation_memory is not None:
            from ...memory import peak_activation

            peak = peak_activation(subject.network.program)
            for found in self.compared(subject, "memory", peak.bytes, subject.budgets.activation_memory):
                yield replace(found, message=f"{found.message}, at {peak.path or peak.node}")


@dataclass(frozen=True)
class TooSlow(_Budget):
    """Slower than the reference by more than the budget allows.

    ## What it does
    Times the network against the model's `reference` (a target or a bundle) on the configured engine, both in turns in
    one process, and compares the ratio of medians with `budgets.latency-ratio`. What lies within the noise is no
    finding.

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
        limit = subject.budgets.latency_ratio
        if limit is None or self.engine is None or subject.reference is None:
            return
        from ...runtime import measure

        networks = (subject.model, subject.reference())
        measured = measure(*networks, engine=self.engine, threads=self.threads, example_inputs=subject.inputs())
        low, high = measured.interval
        if low > limit:
            text = (
                f"{measured.ratio:.2f} ({low:.2f} to {high:.2f}) of the reference's time on {self.engine}, over the "
                f"budget of {limit:g}"
            )
            yield self.finding(subject, "", f"latency({self.engine})", text)


def _number(value: float) -> str:
    return f"{value:,.0f}"
