"""Baselines: what stays known, what is new, and what the file is like."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mofa_compiler.base.errors import LintError
from mofa_compiler.lint.baseline import Baseline, Entry, refresh
from mofa_compiler.lint.finding import Finding, Linted, Position
from tests.raising import raising


def finding(path: str, code: str = "MOFA201", signature: str = "Conv2d(8, k3)", **rest) -> Finding:
    return Finding(code, "a-rule", rest.pop("model", "net"), path, signature, "a message", **rest)


def linted(*findings: Finding, model: str = "net") -> Linted:
    return Linted(model, f"net.py:{model}", tuple(replace(f, model=model) for f in findings), {"comment": 2})


FINDINGS = st.lists(
    st.builds(
        finding,
        path=st.sampled_from(["", "head", "blocks.0", "blocks.1.conv", "blocks.2.conv", "blocks.10.conv", "up1"]),
        code=st.sampled_from(["MOFA101", "MOFA201"]),
        signature=st.sampled_from(["Conv2d(8, k3)", "Conv2d(16, k3)"]),
    ),
    max_size=12,
)


@given(FINDINGS, st.randoms())
def test_what_is_known_stays_known_when_lines_move_and_layers_change_places(findings, random):
    baseline = Baseline().refreshed([linted(*findings)])
    order = list(range(20))
    random.shuffle(order)

    def moved(path: str) -> str:
        return ".".join(str(order[int(part)]) if part.isdigit() else part for part in path.split("."))

    line = iter(random.sample(range(1, 999), len(findings)))
    later = [replace(f, path=moved(f.path), position=Position("net.py", next(line))) for f in findings]
    random.shuffle(later)
    applied = baseline.apply(linted(*later))
    assert applied.findings == ()
    assert applied.suppressed == {"comment": 2, **({"baseline": len(findings)} if findings else {})}
    assert baseline.fixed(linted(*later)) == ()


@given(FINDINGS.filter(bool), st.data())
def test_one_more_of_a_known_kind_is_new(findings, data):
    baseline = Baseline().refreshed([linted(*findings)])
    twin = data.draw(st.sampled_from(findings))
    path = ".".join("19" if part.isdigit() else part for part in twin.path.split("."))
    now = list(findings)
    now.insert(data.draw(st.integers(0, len(now))), replace(twin, path=path))
    applied = baseline.apply(linted(*now))
    assert [(f.code, f.signature) for f in applied.findings] == [(twin.code, twin.signature)]
    assert applied.findings[0] in now
    assert applied.suppressed["baseline"] == len(findings)


@given(FINDINGS, FINDINGS)
def test_a_refresh_knows_all_that_is_there_and_nothing_else(before, now):
    refreshed = Baseline().refreshed([linted(*before)]).refreshed([linted(*now)])
    assert refreshed == Baseline().refreshed([linted(*now)])
    assert refreshed.refreshed([linted(*now)]) == refreshed
    assert refreshed.apply(linted(*now)).findings == ()
    assert refreshed.fixed(linted(*now)) == ()


@given(FINDINGS, FINDINGS)
def test_nothing_is_lost_between_known_new_and_fixed(before, now):
    baseline = Baseline().refreshed([linted(*before)])
    applied = baseline.apply(linted(*now))
    known = applied.suppressed.get("baseline", 0)
    assert known + len(applied.findings) == len(now)
    assert known + len(baseline.fixed(linted(*now))) == len(before)
    kinds = [Counter((f.code, re.sub(r"\d+", "#", f.path), f.signature) for f in these) for these in (before, now)]
    assert known == (kinds[0] & kinds[1]).total()
    exact = {f.fingerprint for f in before}
    assert all(before.count(f) < now.count(f) for f in applied.findings if f.fingerprint in exact)


@given(models=st.dictionaries(st.text(max_size=4), FINDINGS, max_size=3))
def test_the_file_reads_back_and_is_the_same_whatever_the_order(models, tmp_path_factory):
    run = [linted(*findings, model=name) for name, findings in models.items()]
    file = tmp_path_factory.mktemp("baseline") / "baseline.json"
    written = refresh(file, run)
    text = file.read_bytes()
    assert Baseline.load(file) == written
    backwards = [replace(one, findings=one.findings[::-1]) for one in run[::-1]]
    assert refresh(file, backwards) == written
    assert file.read_bytes() == text
    assert json.loads(text)["schema"] == "mofa-lint-baseline/1"
    assert [path.name for path in file.parent.iterdir()] == ["baseline.json"]


def test_the_file_has_one_finding_a_line_in_the_order_of_the_layers():
    run = [linted(finding("b.10"), finding("b.2"), finding("b.2", "MOFA101"), finding("a")), linted(model="clean")]
    assert Baseline().refreshed(run).to_json() == (
        """{
 "schema": "mofa-lint-baseline/1",
 "models": {
  "net": [
   {"code": "MOFA201", "path": "a", "signature": "Conv2d(8, k3)"},
   {"code": "MOFA101", "path": "b.2", "signature": "Conv2d(8, k3)"},
   {"code": "MOFA201", "path": "b.2", "signature": "Conv2d(8, k3)"},
   {"code": "MOFA201", "path": "b.10", "signature": "Conv2d(8, k3)"}
  ]
 }
}
"""
    )
    assert json.loads(Baseline().to_json()) == {"schema": "mofa-lint-baseline/1", "models": {}}


def test_an_inserted_layer_is_the_new_one_and_the_moved_ones_are_not():
    baseline = Baseline().refreshed([linted(finding("blocks.0", signature="A"), finding("blocks.1", signature="B"))])
    now = [finding(f"blocks.{i}", signature=s) for i, s in enumerate("XAB")]
    assert baseline.apply(linted(*now)).findings == (linted(now[0]).findings[0],)


def test_an_exact_match_goes_before_one_that_differs_in_numbers():
    baseline = Baseline().refreshed([linted(finding("blocks.1"))])
    applied = baseline.apply(linted(finding("blocks.0"), finding("blocks.1")))
    assert [f.path for f in applied.findings] == ["blocks.0"]


@pytest.mark.parametrize(
    "changed",
    [{"code": "MOFA202"}, {"signature": "Conv2d(8, k5)"}, {"path": "tail"}, {"path": "blocks.1.conv"}],
    ids=str,
)
def test_another_rule_signature_or_place_is_new(changed):
    known = linted(finding("blocks.1"))
    other = linted(replace(finding("blocks.1"), **changed))
    baseline = Baseline().refreshed([known])
    assert baseline.apply(other).findings == other.findings
    assert baseline.fixed(other) == (Entry("MOFA201", "blocks.1", "Conv2d(8, k3)"),)
    assert baseline.apply(replace(known, model="another")).findings == known.findings


def test_a_model_that_cannot_be_linted_is_never_known_and_loses_nothing():
    broken = linted(finding("", "MOFA901", level="error"))
    assert Baseline().refreshed([broken]) == Baseline()
    baseline = Baseline().refreshed([linted(finding("a"))])
    assert baseline.refreshed([broken]) == baseline
    assert baseline.fixed(broken) == ()
    noted = linted(finding("", "MOFA902", level="note"), finding("a"))
    assert [f.code for f in baseline.apply(noted).findings] == ["MOFA902"]
    assert baseline.refreshed([noted]) == baseline


def test_a_refresh_keeps_what_the_run_did_not_look_at():
    both = [linted(finding("a", "MOFA101"), finding("b", "MOFA201")), linted(finding("c"), model="other")]
    baseline = Baseline().refreshed(both)
    assert baseline.refreshed([linted()]).models == {"other": baseline.models["other"]}
    only = baseline.refreshed([linted()], codes={"MOFA201"})
    assert only.models == {"net": (Entry("MOFA101", "a", "Conv2d(8, k3)"),), "other": baseline.models["other"]}
    assert baseline.fixed(linted(), codes={"MOFA201"}) == (Entry("MOFA201", "b", "Conv2d(8, k3)"),)


GOOD = '{"schema": "mofa-lint-baseline/1", "models": {"net": [{"code": "M", "path": "", "signature": "s"}]}}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is damaged (line 1: Expecting value)"),
        (f"{GOOD[:40]}\n<<<<<<< HEAD", "is damaged (line 1: Invalid control character at)"),
        (GOOD.replace(', "models"', ',\n<<<<<<< HEAD\n"models"'), "is damaged (line 2: Expecting property name"),
        ("[" * 100_000, "is damaged ("),
        ('"\ufffe', "is damaged ("),
        ("[]", "is not a baseline of mofa lint: name another file"),
        ('{"version": "2.1.0", "runs": []}', "is not a baseline of mofa lint"),
        ('{"schema": 3}', "is not a baseline of mofa lint"),
        (GOOD.replace("/1", "/2"), "is a baseline of another version ('mofa-lint-baseline/2')"),
        ('{"schema": "mofa-lint-baseline/1"}', 'is damaged (["models"]: Input should be a valid dictionary)'),
        (GOOD.replace('"s"', "3"), 'is damaged (["models"]["net"][0]["signature"]: Input should be a valid string)'),
        (GOOD.replace('"path"', '"pth"'), 'is damaged (["models"]["net"][0]["path"]: Field required)'),
        (GOOD.replace("[{", "{").replace("}]", "}"), 'is damaged (["models"]["net"]: Input should be a valid list)'),
    ],
)
def test_a_file_that_is_no_baseline_is_one_clear_error_and_stays(tmp_path: Path, text: str, message: str):
    file = tmp_path / "baseline.json"
    file.write_text(text, encoding="utf-8")
    for use in (lambda: Baseline.load(file), lambda: refresh(file, [linted()])):
        with pytest.raises(LintError) as caught:
            use()
        assert message in str(caught.value)
        assert str(file) in str(caught.value) and "\n" not in str(caught.value)
    assert file.read_text(encoding="utf-8") == text


def test_a_file_that_is_not_there(tmp_path: Path):
    with raising(LintError, "not-found", "b.json", "--write-baseline"):
        Baseline.load(tmp_path / "b.json")
    with raising(LintError, "unreadable"):
        Baseline.load(tmp_path)
    with raising(LintError, "unwritable"):
        refresh(tmp_path / "nowhere/b.json", [linted()])


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "baseline.json"
    refresh(file, [linted(finding("a"))])
    text = file.read_text()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with raising(LintError, "unwritable"):
        refresh(file, [linted()])
    assert file.read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == ["baseline.json"]
