"""`sarif`: SARIF 2.1.0, as code scanning services take it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import metadata
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ...base.spelling import printable
from ...base.words import count
from ..finding import UNLINTABLE, Finding, Outcome, Position
from . import wording
from .context import Context
from .data import dump

if TYPE_CHECKING:
    from ..rule import Rule

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_BASE = "%SRCROOT%"
_FINGERPRINT = "mofaFingerprint/v1"
_GITHUBS_FINGERPRINT = "primaryLocationLineHash"
"""The only one that GitHub compares. Left to its upload action it is a hash of the line: one for all layers that a
loop makes, so that they would be one alert. The action warns in its log that ours differs, and keeps it."""
_RESULTS = 25_000
"""GitHub refuses runs with more"""
_TEXT = 1000
"""Characters of a message and of a description that GitHub shows"""
_SEVERITIES = {"error": "error", "warning": "warning", "note": "recommendation"}
_SEMANTIC = re.compile(r"\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?")
_LINK = re.compile(r"\[([^\[\]]*)\]\(")


def render(outcome: Outcome, context: Context) -> str:
    """One run over all models.

    What could not be linted is a result, so that it is seen at its line, and a notification of a run that failed.
    """
    findings: Sequence[Finding] = outcome.findings
    cut = max(0, len(findings) - _RESULTS)
    if cut:
        findings = wording.most_important_first(findings)[:_RESULTS]
    codes = list(dict.fromkeys([*sorted(context.rules), *(finding.code for finding in findings)]))
    indices = {code: index for index, code in enumerate(codes)}
    named = {finding.code: finding.rule for finding in reversed(findings)}
    locations = _Locations(outcome, context)
    fingerprints = wording.fingerprints(findings)
    several = len(outcome.models) > 1
    results = [
        _result(finding, fingerprint, indices[finding.code], locations.of(finding), several)
        for finding, fingerprint in zip(findings, fingerprints, strict=True)
    ]
    notifications = [
        _notification(finding, indices[finding.code], locations.of(finding))
        for finding in findings
        if finding.code.startswith(UNLINTABLE)
    ]
    if cut:
        text = f"{count(cut, 'finding')} left out, the least important ones: the limit is {_RESULTS:,}."
        notifications.append({"level": "warning", "message": {"text": text}})
    run = {
        "tool": {"driver": {**_driver(), "rules": [_rule(code, context.rules.get(code), named) for code in codes]}},
        "invocations": [{"executionSuccessful": outcome.exit_code != 2, "toolExecutionNotifications": notifications}],
        "originalUriBaseIds": {_BASE: {"uri": _uri(f"{context.root.resolve().as_posix().rstrip('/')}/")}},
        "artifacts": locations.artifacts(),
        "results": results,
        "columnKind": "unicodeCodePoints",
    }
    return f"{dump({'$schema': _SCHEMA, 'version': '2.1.0', 'runs': [run]}, indent=2)}\n"


class _Locations:
    """Where findings are, and the files that this takes."""

    def __init__(self, outcome: Outcome, context: Context) -> None:
        self.context = context
        self.targets = wording.targets(outcome)
        self.files: dict[str, int] = {}

    def of(self, finding: Finding) -> dict[str, Any]:
        """One `location` object: the region in the file, if there is one, and the layer."""
        location: dict[str, Any] = {}
        if position := wording.place(finding, self.targets.get(finding.model, ""), self.context):
            index = self.files.setdefault(position.file, len(self.files))
            location["physicalLocation"] = {
                "artifactLocation": {**_artifact(position.file), "index": index},
                "region": _region(position),
            }
        path = printable(finding.path)
        location["logicalLocations"] = [
            {
                "name": path.rpartition(".")[2] if path else printable(finding.model),
                "fullyQualifiedName": path or printable(finding.model),
                "kind": "member" if path else "type",
            }
        ]
        return location

    def artifacts(self) -> list[dict[str, Any]]:
        """The files, in the order of their indices."""
        return [
            {"location": _artifact(file), **({"sourceLanguage": "python"} if file.endswith(".py") else {})}
            for file in self.files
        ]


def _artifact(file: str) -> dict[str, str]:
    return {"uri": _uri(file)} if _is_absolute(file) else {"uri": _uri(file), "uriBaseId": _BASE}


def _is_absolute(file: str) -> bool:
    return file.startswith("/") or bool(re.match("[A-Za-z]:/", file))


def _uri(file: str) -> str:
    if not _is_absolute(file):
        return quote(file, errors="surrogatepass")
    return f"file://{'' if file.startswith('/') else '/'}{quote(file, safe='/:', errors='surrogatepass')}"


def _region(position: Position) -> dict[str, int]:
    """SARIF counts from 1, too, and its last column is exclusive as well; without columns the lines are meant."""
    region = {"startLine": position.line}
    if position.column:
        region["startColumn"] = position.column
    if position.end_line:
        region["endLine"] = position.end_line
    if position.end_column and (position.column or position.end_line):
        region["endColumn"] = position.end_column
    return region


def _result(finding: Finding, fingerprint: str, index: int, location: dict[str, Any], several: bool) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "model": finding.model,
        "layer": finding.path,
        "signature": finding.signature,
        "stage": finding.stage,
    }
    if fix := finding.fix:
        properties |= {
            "passes": list(map(printable, fix.passes)),
            "exact": fix.exact,
            "parameters": fix.parameters,
            "macs": fix.macs,
            "ratio": fix.ratio,
            "engine": fix.engine,
            "layers": list(map(printable, fix.layers)) or None,
        }
    return {
        "ruleId": finding.code,
        "ruleIndex": index,
        "level": finding.level,
        "message": {"text": _plain(wording.sentences(finding, several))},
        "locations": [location],
        "partialFingerprints": {_FINGERPRINT: fingerprint, _GITHUBS_FINGERPRINT: fingerprint},
        "properties": _said(properties),
    }


def _notification(finding: Finding, index: int, location: dict[str, Any]) -> dict[str, Any]:
    return {
        "level": finding.level,
        "message": {"text": _plain(wording.sentences(finding, several_models=True))},
        "associatedRule": {"id": finding.code, "index": index},
        "locations": [location],
    }


def _said(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Properties that have a value, their text without what is not printable."""
    return {
        key: printable(value) if isinstance(value, str) else value
        for key, value in properties.items()
        if value is not None
    }


def _plain(text: str) -> str:
    """A message in which brackets are no links, cut to what is shown."""
    text = _LINK.sub(r"\\[\1\\](", text)
    return text if len(text) <= _TEXT else f"{text[: _TEXT - 1]}…"


def _driver() -> dict[str, Any]:
    about = metadata("mofa-compiler")
    driver: dict[str, Any] = {"name": "mofa lint", "version": about["Version"]}
    if _SEMANTIC.fullmatch(about["Version"]):
        driver["semanticVersion"] = about["Version"]
    for entry in about.get_all("Project-URL") or ():  # `Homepage, https://…`
        driver.setdefault("informationUri", entry.partition(", ")[2])
    return driver


def _rule(code: str, rule: type[Rule] | None, named: Mapping[str, str]) -> dict[str, Any]:
    """Metadata of a rule; of one that is not known, its name."""
    if rule is None:
        name = printable(named[code])
        return {"id": code, "name": _pascal(name), "shortDescription": {"text": name or code}}
    documentation = inspect.getdoc(rule) or ""
    paragraph = " ".join(documentation.partition("\n\n")[0].split())
    tags = ["pytorch", "efficiency"] + ([f"{rule.fixes}-fix"] if rule.fixes else [])
    return {
        "id": code,
        "name": _pascal(rule.name),
        "shortDescription": {"text": _plain(rule.summary())},
        "fullDescription": {"text": _plain(paragraph)},
        "help": {"text": documentation, "markdown": documentation},
        "defaultConfiguration": {"enabled": rule.default == "on", "level": rule.level},
        "properties": {"tags": tags, "problem.severity": _SEVERITIES[rule.level]},
    }


def _pascal(name: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in name.split("-"))
