"""`gitlab`: a Code Quality report."""

from __future__ import annotations

from ...base.spelling import printable
from ..finding import Outcome
from . import wording
from .context import Context
from .data import dump

_SEVERITIES = {"error": "critical", "warning": "minor", "note": "info"}


def render(outcome: Outcome, context: Context) -> str:
    """A list of issues; GitLab takes none without a file, so that one of unknown origin names the target."""
    targets = wording.targets(outcome)
    several = len(outcome.models) > 1
    findings = outcome.findings
    issues = []
    for finding, fingerprint in zip(findings, wording.fingerprints(findings), strict=True):
        target = targets.get(finding.model, "")
        position = wording.place(finding, target, context)
        lines = {"begin": position.line if position else 1}
        if position and position.end_line:
            lines["end"] = position.end_line
        issues.append(
            {
                "description": f"{printable(finding.code)}: {wording.sentences(finding, several)}",
                "check_name": printable(finding.code),
                "fingerprint": fingerprint,
                "severity": _SEVERITIES[finding.level],
                "location": {"path": printable(position.file if position else target), "lines": lines},
            }
        )
    return f"{dump(issues, indent=2)}\n"
