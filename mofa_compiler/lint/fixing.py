"""Carrying out what rules advise: the passes that findings name, through `apply`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from graphlib import TopologicalSorter

from ..autotune.candidates import FORMS
from ..compiler import Result, apply
from ..rewriting.pass_api import Lowering, Pass
from ..rewriting.roadmap import Roadmap
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
            if rule.code in complete and isinstance(pass_, Lowering):
                everywhere.add(pass_)
    named = [one if one in everywhere else replace(one, layers=_globs(layers)) for one, layers in globs.items()]
    return _ordered(named)


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


def _globs(layers: Iterable[str]) -> tuple[str, ...]:
    """The layers, and what passes put below them; brackets in a path are no pattern."""
    escaped = (layer.replace("[", "[[]") for layer in dict.fromkeys(layers))
    return tuple(glob for layer in escaped for glob in (layer, f"{layer}.*"))


def _ordered(passes: Sequence[Pass]) -> list[Pass]:
    """By `after`, lowerings last, otherwise as they are; forms of partial convolutions after what merges into them."""
    names = list(dict.fromkeys(pass_.name for pass_ in passes))
    kinds = {pass_.name: pass_ for pass_ in passes}
    sorter = TopologicalSorter({name: [one for one in kinds[name].after if one in names] for name in names})
    order = {name: index for index, name in enumerate(sorter.static_order())}
    return sorted(passes, key=lambda one: (isinstance(one, Lowering), one.name == FORMS, order[one.name]))
