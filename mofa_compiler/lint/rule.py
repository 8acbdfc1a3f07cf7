"""What a rule is: a code, a text that explains it, and what it finds in a network."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from torch import nn

from ..inputs import CallSpec
from ..network import Network
from .finding import Finding, Fix, Level, Position

Default = Literal["on", "off", "engine"]
"""Whether a rule runs that nobody selected; `engine`: where an engine is configured"""


@dataclass(frozen=True)
class Subject:
    """One model, as rules see it.

    Attributes:
        name: as the configuration gives it.
        model: as it was built, in eval mode.
        network: what was captured of it.
        call: example inputs.
        positions: where layers were made, by path; the empty path is the model's own class or factory.
    """

    name: str
    model: nn.Module
    network: Network
    call: CallSpec
    positions: Mapping[str, Position] = field(default_factory=dict)

    def position(self, path: str) -> Position | None:
        """Where the module at a path was made, or else the nearest one around it."""
        while path and path not in self.positions:
            path = path.rpartition(".")[0]
        return self.positions.get(path)


class Rule(ABC):
    """One rule. A subclass is a frozen dataclass whose fields are its thresholds.

    Its docstring is its documentation, in Markdown, with the sections `What it does`, `Why is this bad?`, `Example`,
    `Use instead` (where there is something) and `Fix safety`.
    """

    code: ClassVar[str]
    name: ClassVar[str]
    default: ClassVar[Default] = "on"
    level: ClassVar[Level] = "warning"
    fixes: ClassVar[Literal["exact", "approximate"] | None] = None
    """Whether a fix keeps what the network computes; None where there is no fix"""

    @abstractmethod
    def check(self, subject: Subject) -> Iterator[Finding]:
        """Everything that it finds, in execution order."""

    @classmethod
    def summary(cls) -> str:
        """The first line of the documentation."""
        return inspect.getdoc(cls).partition("\n")[0].rstrip(".")  # type: ignore[union-attr]

    def finding(
        self,
        subject: Subject,
        path: str,
        signature: str,
        message: str,
        *,
        stage: str | None = None,
        fix: Fix | None = None,
    ) -> Finding:
        """A finding of this rule."""
        return Finding(
            self.code, self.name, subject.name, path, signature, message, self.level, stage, subject.position(path), fix
        )
