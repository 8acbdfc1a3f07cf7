"""What several formats say in the same words: places, order, groups of findings that are alike, fixes, totals."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...base.spelling import printable
from ...base.words import count, quantity, signed
from ..finding import Finding, Fix, Linted, Outcome, Position
from .context import Context

if TYPE_CHECKING:
    from ..rule import Rule

LEVELS = ("error", "warning", "note")
_LAYERS_NAMED = 3
_RULES_NAMED = 4
_KINDS_SHOWN = 4


@dataclass(frozen=True)
class Group:
    """Findings of one model and rule that one line of source makes and the same passes mend, in the order of layers."""

    findings: tuple[Finding, ...]

    @property
    def first(self) -> Finding:
        """Stands for what all have in common: code, rule, level, position and the fix's passes."""
        return self.findings[0]

    @property
    def macs(self) -> int | None:
        """Change in MACs by all fixes; None where that of one is not known."""
        return _sum(finding.fix.macs if finding.fix else None for finding in self.findings)

    @property
    def parameters(self) -> int | None:
        """Change in parameters by all fixes; None where that of one is not known."""
        return _sum(finding.fix.parameters if finding.fix else None for finding in self.findings)

    @property
    def layers(self) -> list[str]:
        """Paths, harmless to print; none of what is said of the model as a whole."""
        return [printable(finding.path) for finding in self.findings if finding.path]

    @property
    def kinds(self) -> list[tuple[str, list[str]]]:
        """What is said, and of which layers, in order of appearance."""
        kinds: dict[str, list[str]] = {}
        for finding in self.findings:
            kinds.setdefault(printable(finding.message), []).extend([printable(finding.path)] if finding.path else [])
        return list(kinds.items())

    @property
    def shown_kinds(self) -> tuple[list[tuple[str, list[str]]], str]:
        """The first kinds, as many as are readable, and how many more there are: `12 findings of 3 more kinds`."""
        kinds = self.kinds
        if len(kinds) <= _KINDS_SHOWN + 1:
            return kinds, ""
        rest = sum(max(1, len(layers)) for _, layers in kinds[_KINDS_SHOWN:])
        return kinds[:_KINDS_SHOWN], f"{count(rest, 'finding')} of {len(kinds) - _KINDS_SHOWN} more kinds"

    def title(self, rules: Mapping[str, type[Rule]]) -> str:
        """The message, or the rule's summary where several things are said."""
        if len(self.kinds) == 1:
            return self.kinds[0][0]
        rule = rules.get(self.first.code)
        if rule is None:
            return f"{count(len(self.findings), 'finding')} of {len(self.kinds)} kinds"
        summary = rule.summary()
        return summary[:1].lower() + summary[1:] if summary[1:2] in " abcdefghijklmnopqrstuvwxyz" else summary


def grouped(findings: Iterable[Finding]) -> list[Group]:
    """Groups, the most important first; findings without a position are alike only where they say the same."""
    groups: dict[tuple[object, ...], list[Finding]] = {}
    for finding in findings:
        fix = finding.fix
        mending = (fix.passes, fix.exact, fix.ratio, fix.engine) if fix else None
        alike = finding.position or (finding.message, finding.signature)
        groups.setdefault((finding.model, finding.code, finding.level, alike, mending), []).append(finding)
    found = [Group(tuple(members)) for members in groups.values()]
    return sorted(found, key=lambda group: (_rank(group.first), -sum(finding.saving for finding in group.findings)))


def most_important_first(findings: Iterable[Finding]) -> list[Finding]:
    """Errors, then warnings, then notes; those of a level by what their fix saves."""
    return sorted(findings, key=lambda finding: (_rank(finding), -finding.saving))


def _rank(finding: Finding) -> int:
    return LEVELS.index(finding.level)


def _sum(changes: Iterable[int | None]) -> int | None:
    known = list(changes)
    return None if None in known else sum(change for change in known if change is not None)


def subject(finding: Finding, several_models: bool) -> str:
    """What a finding is about, for brackets: `nafnet: encoders.0.conv2`, or no more than is needed to tell."""
    if not finding.path:
        return printable(finding.model)
    return printable(f"{finding.model}: {finding.path}" if several_models else finding.path)


def listed(names: Sequence[str], shown: int = _LAYERS_NAMED) -> str:
    """`a, b, c and 23 more`."""
    rest = len(names) - shown
    if rest <= 1:  # to name the last one takes no more room
        return ", ".join(names)
    return f"{', '.join(names[:shown])} and {rest} more"


def relative(file: str, root: Path) -> str:
    """`file` with slashes, relative to `root` if it lies in there, else absolute."""
    path = Path(os.path.normpath(root / file))
    pairs = [(path, Path(os.path.normpath(root)))]
    with contextlib.suppress(OSError, ValueError):  # ValueError: no file can have this name
        pairs.append((Path(os.path.realpath(path)), Path(os.path.realpath(root))))
    for inner, outer in pairs:
        if inner.is_relative_to(outer):
            return inner.relative_to(outer).as_posix()
    return path.as_posix()


def spot(finding: Finding, root: Path) -> str:
    """`net.py:42:22`, or nothing where the position is not known."""
    if not finding.position:
        return ""
    position = finding.position
    column = f":{position.column}" if position.column else ""
    return printable(f"{relative(position.file, root)}:{position.line}{column}")


def place(finding: Finding, target: str, context: Context) -> Position | None:
    """Where a finding points, its file relative to the root.

    Without a position of its own that is the first line of the configuration or else of the target's file, if it has
    one: a service that shows findings in files takes none without a line.
    """
    if finding.position:
        return replace(finding.position, file=relative(finding.position.file, context.root))
    if context.config:
        return Position(relative(str(context.config), context.root), 1)
    file = target.rpartition(":")[0]
    if file.endswith(".py") and (context.root / file).is_file():
        return Position(relative(file, context.root), 1)
    return None


def targets(outcome: Outcome) -> dict[str, str]:
    """What each model was built from, by its name."""
    return {linted.model: linted.target for linted in outcome.models}


def how(fix: Fix) -> str:
    """`sepconv-to-pconv, then widen-portion (approximate)`."""
    return f"{printable(', then '.join(fix.passes))} ({'exact' if fix.exact else 'approximate'})"


def effect(fix: Fix, macs: int | None, parameters: int | None) -> str:
    """`−406 M MACs, +1.20 M parameters, 0.78 × the network's time on xnnpack 1.5.1`; empty where nothing is known."""
    parts = []
    if macs is not None:
        parts.append(f"{signed(macs)} MACs" if macs else "the same MACs")
    if parameters is not None:
        parts.append(f"{signed(parameters)} parameters" if parameters else "the same parameters")
    if fix.ratio is not None:
        on = f" on {printable(fix.engine)}" if fix.engine else ""
        parts.append(f"{fix.ratio:.3g} × the network's time{on}")
    return ", ".join(parts)


def mended(fix: Fix, macs: int | None, parameters: int | None) -> str:
    """One clause: `fixed by sepconv-to-pconv (approximate): −406 M MACs`."""
    effects = effect(fix, macs, parameters)
    return f"fixed by {how(fix)}{f': {effects}' if effects else ''}"


def sentences(finding: Finding, several_models: bool) -> str:
    """Message, layer and fix in sentences, for services that show one text."""
    text = f"{printable(finding.message)} ({subject(finding, several_models)})."
    if finding.fix:
        clause = mended(finding.fix, finding.fix.macs, finding.fix.parameters)
        text += f" {clause[0].upper()}{clause[1:]}."
    return text


def fingerprints(findings: Sequence[Finding]) -> list[str]:
    """One for each finding, told apart where one layer has several alike ones: some services drop what comes twice."""
    seen: Counter[str] = Counter()
    unique = []
    for finding in findings:
        fingerprint = finding.fingerprint
        seen[fingerprint] += 1
        unique.append(fingerprint if seen[fingerprint] == 1 else f"{fingerprint}:{seen[fingerprint]}")
    return unique


def model_line(linted: Linted) -> str:
    """`nafnet (net.py:NAFNet): 17.1 M parameters, 16.1 G MACs at 1x3x256x256`."""
    facts = []
    if linted.parameters is not None:
        facts.append(f"{quantity(linted.parameters)} parameters")
    if linted.macs is not None:
        facts.append(f"{quantity(linted.macs)} MACs{f' at {linted.inputs}' if linted.inputs else ''}")
    return printable(f"{linted.model} ({linted.target})" + (f": {', '.join(facts)}" if facts else ""))


def headline(outcome: Outcome) -> str:
    """`34 findings in 2 models: 26 MOFA201, 5 MOFA302, 3 MOFA105`."""
    models = count(len(outcome.models), "model")
    rules = Counter(printable(finding.code) for finding in outcome.findings).most_common()
    if not rules:
        return f"No findings in {models}"
    shown = _RULES_NAMED if len(rules) > _RULES_NAMED + 1 else len(rules)
    named = [f"{number} {code}" for code, number in rules[:shown]]
    if others := rules[shown:]:
        named.append(f"{sum(number for _, number in others)} of {len(others)} other rules")
    return f"{count(len(outcome.findings), 'finding')} in {models}: {', '.join(named)}"


def remarks(outcome: Outcome) -> list[str]:
    """What can be fixed, was fixed, and was left out, a clause each."""
    open_ = [finding.fix for finding in outcome.findings if finding.fix]
    exact = sum(fix.exact for fix in open_)
    clauses = []
    if fixed := sum(len(linted.fixed) for linted in outcome.models):
        clauses.append(f"{fixed} fixed")
    if exact:
        clauses.append(f"{exact} fixable with --fix (exact)")
    if approximate := len(open_) - exact:
        clauses.append(f"{approximate} {'more ' if exact else 'fixable '}with --fix --unsafe-fixes (approximate)")
    left_out: Counter[str] = Counter()
    for linted in outcome.models:
        left_out.update(linted.suppressed)
    if total := sum(left_out.values()):
        by = ", ".join(f"{number} by {printable(name)}" for name, number in left_out.items() if number)
        clauses.append(f"{total} left out ({by})")
    return clauses
