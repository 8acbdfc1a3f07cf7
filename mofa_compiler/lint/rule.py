"""What a rule is: a code, a text that explains it, and what it finds in a network."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from ..analysis.network import Network
from ..graph.call_spec import CallSpec, tensors_by_position
from ..rewriting.diff import Diff
from ..rewriting.pass_api import Pass
from .finding import Default, Finding, Fix, Level, Position
from .savings import Change, lowered, savings
from .settings import ModelBudgets


@dataclass(frozen=True)
class Subject:
    """One model, as rules see it.

    Attributes:
        name: as the configuration gives it.
        model: as it was built, in eval mode.
        network: what was captured of it.
        call: example inputs.
        positions: where layers were made, by path; the empty path is the model's own class or factory.
        budgets: what it may use.
        reference: makes what its latency is compared with, where there is such.
        calibration: inputs like those that it will meet, where there are such.
    """

    name: str
    model: nn.Module
    network: Network
    call: CallSpec
    positions: Mapping[str, Position] = field(default_factory=dict)
    budgets: ModelBudgets = field(default_factory=ModelBudgets)
    reference: Callable[[], nn.Module] | None = None
    calibration: Iterable[Any] | None = None
    _known: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    def position(self, path: str) -> Position | None:
        """Where the module at a path was made, or else the nearest one around it."""
        while path and path not in self.positions:
            path = path.rpartition(".")[0]
        return self.positions.get(path)

    def inputs(self) -> tuple[Tensor, ...]:
        """Tensors for one call of the model, in order.

        Raises:
            EngineError: it takes other values, too.
        """
        return tensors_by_position(self.model, self.call.example())

    def changes(self, *passes: Pass) -> Mapping[str, Change]:
        """What passes, one after the other, would change, by path of the layer; nothing where that is not known."""
        if passes not in self._known:
            self._known[passes] = savings(self.network, *passes) or {}
        found: Mapping[str, Change] = self._known[passes]
        return found

    def lowered(self, pass_: Pass) -> Diff:
        """The diff of an exact pass, which is carried out for it."""
        key = ("lowered", pass_)
        if key not in self._known:
            self._known[key] = lowered(self.network, pass_)
        found: Diff = self._known[key]
        return found


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
    needs_engine: ClassVar[bool] = False
    """Whether it has nothing to say without one"""
    needs_calibration: ClassVar[bool] = False
    """Whether it has nothing to say without calibration inputs"""

    @abstractmethod
    def check(self, subject: Subject) -> Iterator[Finding]:
        """Everything that it finds, in execution order."""

    def passes(self) -> tuple[Pass, ...]:
        """The passes that its findings name, with its thresholds as their options, in order."""
        return ()

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
