"""`concise`: a line for each finding, as editors and `grep` take it."""

from __future__ import annotations

from ...base.spelling import printable
from ..finding import Finding, Outcome
from . import wording
from .context import Context


def render(outcome: Outcome, context: Context) -> str:
    """`file:line:column: CODE message [layer]`; where no position is known, the target takes the file's place.

    `[*]` marks what `--fix` mends.
    """
    several = len(outcome.models) > 1
    return "".join(
        f"{_line(finding, linted.target, context, several)}\n"
        for linted in outcome.models
        for finding in linted.findings
    )


def _line(finding: Finding, target: str, context: Context, several: bool) -> str:
    where = wording.spot(finding, context.root) or target
    mark = "[*] " if finding.fix and finding.fix.exact else ""
    return printable(f"{where}: {finding.code} {mark}{finding.message} [{wording.subject(finding, several)}]")
