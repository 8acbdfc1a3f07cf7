"""`gitlab`: a Code Quality report with what GitLab requires of it."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given

from mofa_compiler.lint.finding import Finding, Linted, Outcome
from mofa_compiler.lint.formats import Context, renderer
from tests.lint.formats.samples import RULES, outcomes

gitlab = renderer("gitlab")


def test_an_issue_has_what_gitlab_requires(outcome: Outcome, context: Context) -> None:
    issues = json.loads(gitlab(outcome, context))
    assert len(issues) == 30
    assert issues[26] == {
        "description": "MOFA301: a transposed convolution leaves a checkerboard and is slow (nafnet: ups.0). "
        "Fixed by decouple-upsampling (exact): −1.00 M MACs, the same parameters.",
        "check_name": "MOFA301",
        "fingerprint": outcome.findings[26].fingerprint,
        "severity": "minor",
        "location": {"path": "nets/nafnet.py", "lines": {"begin": 11, "end": 16}},
    }
    assert [issue["severity"] for issue in issues[27:]] == ["info", "critical", "critical"]
    assert issues[29]["location"] == {"path": "pyproject.toml", "lines": {"begin": 1}}


def test_without_a_configuration_the_target_is_where_a_model_is(outcome: Outcome, root: Path) -> None:
    issues = json.loads(gitlab(outcome, Context(RULES, root)))
    assert issues[28]["location"] == {"path": "nets/nafnet.py", "lines": {"begin": 1}}
    assert issues[29]["location"]["path"] == "nets/unet.py:UNet"  # there is no such file


def test_fingerprints_are_told_apart(context: Context) -> None:
    twice = Finding("MOFA201", "r", "m", "a", "s", "x")
    issues = json.loads(gitlab(Outcome([Linted("m", "t", (twice, twice), {})]), context))
    assert [issue["fingerprint"] for issue in issues] == [twice.fingerprint, f"{twice.fingerprint}:2"]


@given(outcome=outcomes())
def test_any_name_makes_a_list_of_issues(outcome: Outcome) -> None:
    issues = json.loads(gitlab(outcome, Context(RULES, Path("/nowhere"))))
    assert len(issues) == len(outcome.findings)
    assert len({issue["fingerprint"] for issue in issues}) == len(issues)
    assert all(issue["location"]["lines"]["begin"] >= 1 for issue in issues)
