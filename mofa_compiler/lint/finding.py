"""What lint found: plain data, which the output formats render."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Level = Literal["error", "warning", "note"]
"""`error`: a budget is broken, or the model cannot be linted at all; `note`: an opportunity"""

BUDGETS = "MOFA5"
"""How the codes begin that say that a budget is broken"""

UNLINTABLE = "MOFA9"
"""How the codes begin that say that a model, or a part of it, cannot be linted"""


Default = Literal["on", "off", "engine"]
"""Whether a rule runs that nobody selected; `engine`: where an engine is configured"""


@dataclass(frozen=True)
class Position:
    """A place in a source file, all numbers from 1; columns count characters, the last one is exclusive."""

    file: str
    line: int
    end_line: int | None = None
    column: int | None = None
    end_column: int | None = None


@dataclass(frozen=True)
class Fix:
    """What would mend a finding.

    Attributes:
        passes: names of the passes, in the order in which they are carried out.
        exact: whether the network then computes what it did, so that `--fix` alone carries it out.
        parameters: change in parameters; None where it is not known.
        macs: change in MACs of one forward pass on the model's input.
        ratio: of the whole network's time with this rule's fixes to that without, on `engine`, where that was measured.
        engine: that engine, with its version.
        layers: paths of the layers that it rewrites, where that is not the finding's path alone.
        ms: change in the whole network's time there, of all of this rule's fixes together.
    """

    passes: tuple[str, ...]
    exact: bool
    parameters: int | None = None
    macs: int | None = None
    ratio: float | None = None
    engine: str | None = None
    layers: tuple[str, ...] = ()
    ms: float | None = None


@dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        code: of the rule, such as `MOFA201`.
        rule: its name, such as `separable-convolution`.
        model: name of the model, as the configuration gives it.
        path: dotted path of the layer, or of the module that calls the operation; empty for the model as a whole.
        signature: of the layer or operation, such as `Conv2d(64, k3, depthwise)`.
        message: what is there and why it matters, in one sentence without a full stop.
        level: how grave it is.
        stage: of the network, where the layer belongs to one.
        position: of the call that made the layer, where that is known.
        fix: what would mend it; None where nothing does by machine.
    """

    code: str
    rule: str
    model: str
    path: str
    signature: str
    message: str
    level: Level = "warning"
    stage: str | None = None
    position: Position | None = None
    fix: Fix | None = None

    @property
    def fingerprint(self) -> str:
        """What makes this finding the same one in another version of the source: never a line number."""
        parts = "\0".join((self.code, self.model, self.path, self.signature))
        return hashlib.sha256(parts.encode(errors="surrogatepass")).hexdigest()[:32]

    @property
    def saving(self) -> int:
        """MACs that the fix saves, by which findings are sorted; 0 where that is not known, or where it costs some."""
        return max(0, -(self.fix.macs or 0)) if self.fix else 0

    @property
    def layers(self) -> tuple[str, ...]:
        """Paths of the layers that the fix rewrites; without one, that of the finding."""
        return (self.fix.layers if self.fix else ()) or (self.path,)

    def to_data(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {**asdict(self), "fingerprint": self.fingerprint}


@dataclass(frozen=True)
class Linted:
    """One model's findings.

    Attributes:
        model: its name.
        target: what it was built from.
        findings: what counts, in the order of the layers.
        suppressed: how many a comment, the configuration or the baseline took out, by what took them.
        parameters: of the network; None where it could not be traced.
        macs: of one forward pass on `inputs`.
        stages: MACs by stage, in order.
        inputs: shapes, such as `1x3x256x256`.
        fixed: findings that `--fix` mended.
        seconds: what linting it took.
    """

    model: str
    target: str
    findings: tuple[Finding, ...]
    suppressed: Mapping[str, int]
    parameters: int | None = None
    macs: int | None = None
    stages: Mapping[str, int] | None = None
    inputs: str = ""
    fixed: tuple[Finding, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """A whole run."""

    models: Sequence[Linted]

    @property
    def findings(self) -> list[Finding]:
        """All models' findings."""
        return [finding for linted in self.models for finding in linted.findings]

    @property
    def exit_code(self) -> int:
        """0: clean, 1: findings, 2: a model could not be linted (rules 9xx)."""
        if any(finding.code.startswith(UNLINTABLE) and finding.level == "error" for finding in self.findings):
            return 2
        return 1 if self.findings else 0

    def to_data(self) -> dict[str, Any]:
        """As `--output-format json` prints it."""
        models = [
            {
                **asdict(linted),
                "findings": [finding.to_data() for finding in linted.findings],
                "fixed": [finding.to_data() for finding in linted.fixed],
            }
            for linted in self.models
        ]
        return {"schema": "mofa-lint/1", "models": models}
