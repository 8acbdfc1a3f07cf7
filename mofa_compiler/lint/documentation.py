"""The rules' documentation, made of their docstrings."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from .rule import Rule
from .rules import RULES

FAMILIES = {
    "0": "The lint itself",
    "1": "FLOPs-cheap",
    "2": "Convolutions",
    "3": "Resampling",
    "4": "Deployment",
    "5": "Budgets",
    "9": "What cannot be linted",
}
_WHEN = {"on": "yes", "off": "no", "engine": "with an engine"}
_FIX = {"exact": "exact (`--fix`)", "approximate": "approximate (`--unsafe-fixes`)", None: "none"}


def document(rule: type[Rule]) -> str:
    """A rule's page, in Markdown."""
    first, _, rest = (inspect.getdoc(rule) or "").partition("\n")
    facts = f"On by default: {_WHEN[rule.default]}. Level: {rule.level}. Fix: {_FIX[rule.fixes]}."
    return f"# {rule.name} ({rule.code})\n\n{first}\n\n{facts}\n{rest.rstrip()}\n"


def table() -> Iterator[tuple[str, str, str, str, str]]:
    """Code, name, when it is on, kind of fix, and summary of every rule."""
    for code, rule in RULES.items():
        yield code, rule.name, _WHEN[rule.default], rule.fixes or "", rule.summary()


def page() -> str:
    """All rules: a table, then each rule's page, in Markdown."""
    lines = [
        "# The rules of `mofa lint`",
        "",
        "Made by `mofa rule --all`; the text is that of the rules themselves. A code is never used for anything else,",
        "not even after its rule is gone. *With an engine*: on where the configuration names an engine.",
        "",
    ]
    for digit, title in FAMILIES.items():
        lines += [f"**{digit}xx {title}**", "", "| code | name | on by default | fix | |", "|---|---|---|---|---|"]
        for code, name, when, fix, summary in table():
            if code[4] == digit:
                lines.append(f"| [{code}](#{name}-{code.lower()}) | {name} | {when} | {fix} | {summary} |")
        lines.append("")
    for rule in RULES.values():
        lines.append(document(rule).replace("\n## ", "\n### ").replace("# ", "## ", 1))
    return "\n".join(lines)
