"""`junit`: a test report, as Jenkins, GitLab and others read it."""

from __future__ import annotations

from collections import Counter
from xml.etree import ElementTree

from ...base.spelling import printable
from ..finding import UNLINTABLE, Finding, Linted, Outcome
from . import wording
from .context import Context


def render(outcome: Outcome, context: Context) -> str:
    """A suite for each model and a failed case for each finding; a model without findings is one case that passed.

    What could not be linted is an error instead of a failure. Only ASCII is written, so that every stdout can take it.
    """
    suites = ElementTree.Element("testsuites", name="mofa lint")
    for linted in outcome.models:
        _suite(suites, linted, context)
    for key in ("tests", "failures", "errors"):
        suites.set(key, str(sum(int(suite.get(key, "0")) for suite in suites)))
    suites.set("time", f"{sum(linted.seconds for linted in outcome.models):.3f}")
    ElementTree.indent(suites)
    return f"{ElementTree.tostring(suites, encoding='us-ascii', xml_declaration=True).decode('ascii')}\n"


def _suite(parent: ElementTree.Element, linted: Linted, context: Context) -> None:
    model = printable(linted.model)
    broken = sum(map(_is_error, linted.findings))
    suite = ElementTree.SubElement(
        parent,
        "testsuite",
        name=model,
        tests=str(len(linted.findings) or 1),
        failures=str(len(linted.findings) - broken),
        errors=str(broken),
        skipped="0",
        time=f"{linted.seconds:.3f}",
    )
    if not linted.findings:
        ElementTree.SubElement(suite, "testcase", name="no findings", classname=model, time=f"{linted.seconds:.3f}")
    seen: Counter[str] = Counter()
    for finding in linted.findings:
        name = printable(f"{finding.code} {finding.path or finding.model}")
        seen[name] += 1
        if seen[name] > 1:  # cases of one name would be taken for one another
            name += f" ({seen[name]})"
        case = ElementTree.SubElement(
            suite, "testcase", name=name, classname=printable(f"{linted.model}.{finding.rule}"), time="0"
        )
        text = wording.sentences(finding, several_models=False)
        if position := wording.place(finding, linted.target, context):
            case.set("file", printable(position.file))
            case.set("line", str(position.line))
            text = f"{printable(position.file)}:{position.line}: {text}"
        failure = ElementTree.SubElement(
            case,
            "error" if _is_error(finding) else "failure",
            message=printable(finding.message),
            type=printable(finding.code),
        )
        failure.text = f"{text}\n{finding.level}, see: mofa rule {printable(finding.code)}"


def _is_error(finding: Finding) -> bool:
    return finding.code.startswith(UNLINTABLE) and finding.level == "error"
