"""`junit`: XML that adds up."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from hypothesis import given

from mofa_compiler.lint.finding import Finding, Linted, Outcome
from mofa_compiler.lint.formats import Context, renderer
from tests.lint.formats.samples import RULES, outcomes

junit = renderer("junit")


def test_models_are_suites_and_findings_are_failures(outcome: Outcome, context: Context) -> None:
    suites = ElementTree.fromstring(junit(outcome, context))
    assert suites.attrib == {"name": "mofa lint", "tests": "31", "failures": "29", "errors": "1", "time": "1.250"}
    nafnet, unet, tiny = suites
    assert nafnet.attrib == {
        "name": "nafnet",
        "tests": "29",
        "failures": "29",
        "errors": "0",
        "skipped": "0",
        "time": "1.250",
    }
    case = nafnet[26]
    assert case.attrib == {
        "name": "MOFA301 ups.0",
        "classname": "nafnet.transposed-convolution",
        "time": "0",
        "file": "nets/nafnet.py",
        "line": "11",
    }
    assert case[0].tag == "failure" and case[0].get("type") == "MOFA301"
    assert case[0].text == (
        "nets/nafnet.py:11: a transposed convolution leaves a checkerboard and is slow (ups.0). Fixed by "
        "decouple-upsampling (exact): −1.00 M MACs, the same parameters.\nwarning, see: mofa rule MOFA301"
    )
    assert [element.tag for element in unet[0]] == ["error"]
    assert [case.get("name") for case in tiny] == ["no findings"] and not list(tiny[0])


def test_cases_of_one_layer_have_names_of_their_own(context: Context) -> None:
    twice = Finding("MOFA201", "r", "m", "a", "s", "x")
    suite = ElementTree.fromstring(junit(Outcome([Linted("m", "t", (twice, twice), {})]), context))[0]
    assert [case.get("name") for case in suite] == ["MOFA201 a", "MOFA201 a (2)"]


@given(outcome=outcomes())
def test_any_name_makes_valid_xml_with_right_sums(outcome: Outcome) -> None:
    suites = ElementTree.fromstring(junit(outcome, Context(RULES, Path("/nowhere"))).encode("ascii"))
    assert len(suites) == len(outcome.models)
    for suite, linted in zip(suites, outcome.models, strict=True):
        assert len(suite) == int(suite.get("tests", "")) == max(1, len(linted.findings))
        for kind, counted in (("failure", "failures"), ("error", "errors")):
            assert len(suite.findall(f"testcase/{kind}")) == int(suite.get(counted, ""))
    assert int(suites.get("failures", "")) + int(suites.get("errors", "")) == len(outcome.findings)
