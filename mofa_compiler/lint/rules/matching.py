"""Rules that are a pass's match: what the pass would rewrite is what the rule finds."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ...analysis.layers import Layer, signature
from ...analysis.network import Network
from ...rewriting.engine import match
from ...rewriting.pass_api import Match, Pass
from ...rewriting.registry import available
from ..finding import Finding, Fix
from ..rule import Rule, Subject


@dataclass(frozen=True)
class PassRule(Rule):
    """A rule whose findings are what a pass matches, or some of that."""

    @abstractmethod
    def fix(self) -> Pass | None:
        """The pass, with the rule's thresholds as its options; None where it is not installed."""

    @abstractmethod
    def message(self, layer: Layer, found: Match, network: Network) -> str | None:
        """What is wrong with a layer that the pass matches; None where it is not this rule's."""

    def passes(self) -> tuple[Pass, ...]:
        pass_ = self.fix()
        return (pass_,) if pass_ else ()

    def check(self, subject: Subject) -> Iterator[Finding]:
        pass_ = self.fix()
        if pass_ is None:
            return
        matches, _ = match(subject.network, pass_)
        told = [(layer, text) for layer, found in matches if (text := self.message(layer, found, subject.network))]
        if not told:
            return
        changes = subject.changes(pass_)
        for layer, text in told:
            change = changes.get(layer.path)
            fix = Fix(
                (pass_.name,),
                change.exact if change else self.fixes == "exact",
                change.parameters if change else None,
                change.macs if change else None,
            )
            stage = layer.stage.name if layer.stage else None
            yield self.finding(subject, layer.path, signature(layer.module), text, stage=stage, fix=fix)


def installed(name: str, **options: Any) -> Pass | None:
    """A pass by name, with options; None where no package provides it."""
    kind = available().get(name)
    return kind(**options) if kind else None
