"""Carrying out what rules advise: the passes that findings name, through `apply`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace

from ..compiler import Result, apply
from ..rewriting.pass_api import Pass, Phase
from ..rewriting.roadmap import Roadmap, at_layers, in_order
from .finding import Finding
from .rule import Rule, Subject


def fixable(findings: Iterable[Finding], unsafe: bool) -> list[Finding]:
    """The findings that are mended: exact fixes all, of approximate ones at most one a layer, which saves most MACs."""
    chosen: list[Finding] = []
    taken: set[str] = set()
    for finding in sorted(findings, key=lambda finding: -finding.saving):
        if finding.fix is None or not (finding.fix.exact or unsafe):
            continue
        if not finding.fix.exact:
            if taken.intersection(finding.layers):
                continue
            taken.update(finding.layers)
        chosen.append(finding)
    return chosen


def passes_for(rules: Iterable[Rule], findings: Sequence[Finding], complete: Collection[str] = ()) -> list[Pass]:
    """The passes of these findings' rules, each for the findings' layers alone, in an order that roadmaps take.

    Args:
        rules: whose findings they are. findings: what to mend.
        complete: codes of rules all of whose findings are among these: their lowerings look everywhere, since one may
            make work for another.
    """
    globs: dict[Pass, list[str]] = {}
    everywhere: set[Pass] = set()
    for rule in rules:
        mine = [finding for finding in findings if finding.code == rule.code and finding.fix is not None]
        layers = [layer for one in mine for layer in one.layers]
        for pass_ in rule.passes() if layers else ():
            globs.setdefault(pass_, []).extend(layers)
            if rule.code in complete and pass_.phase is Phase.LOWER:
                everywhere.add(pass_)
    named = [one if one in everywhere else replace(one, layers=at_layers(layers)) for one, layers in globs.items()]
    return in_order(sorted(named, key=lambda one: one.phase is Phase.LOWER and one.per_layer))


def fix(
    subject: Subject,
    rules: Iterable[Rule],
    findings: Sequence[Finding],
    complete: Collection[str] = (),
    checkpoint: str | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Result:
    """The model with these findings mended.

    Raises:
        BundleError, RewriteError, RoadmapError: as `apply` does; nothing is half done.
    """
    passes = passes_for(rules, findings, complete)
    roadmap = Roadmap(passes, name="lint")
    return apply(subject.model, roadmap, subject.call, to_save=True, checkpoint=checkpoint, progress=progress)


def mended(findings: Iterable[Finding], result: Result) -> list[Finding]:
    """Those of the findings at whose layers something was rewritten."""
    edited = {edit.path for diff in result.diffs for edit in diff.rewritten}
    return [finding for finding in findings if not edited.isdisjoint(finding.layers)]
