"""`mofa report`: the page of a bundle, made anew."""

from __future__ import annotations

import json
import webbrowser
from pathlib import Path

import pytest
import torch
from jsonschema import ValidationError, validate
from torch import nn
from typer.testing import CliRunner, Result

from mofa_compiler import apply
from mofa_compiler.cli import app
from tests.report.reports import image


def mofa(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return apply(nn.Sequential(nn.Conv2d(3, 3, 1)), "mofa", torch.rand(1, 3, 8, 8)).save(tmp_path / "net")


def test_the_page_is_made_anew_and_nothing_else(bundle: Path) -> None:
    before = {file.name: file.read_bytes() for file in bundle.iterdir()}
    (bundle / "report.html").write_text("old")
    result = mofa(bundle)
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{bundle / 'report.html'}\n", "")
    assert {file.name: file.read_bytes() for file in bundle.iterdir()} == before


def test_it_follows_the_report(bundle: Path) -> None:
    report = json.loads((bundle / "report.json").read_text())
    (bundle / "report.json").write_text(json.dumps({**report, "model": "Another<Net>"}))
    assert mofa(bundle, "--quiet").stdout == ""
    assert "<title>Another&lt;Net&gt; rewritten by mofa" in (bundle / "report.html").read_text()


def test_to_another_file_and_into_the_browser(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: not shown.append(url))
    (bundle / "report.html").unlink()
    out = tmp_path / "mail me.html"
    assert mofa(bundle, "--out", out, "--open").exit_code == 0
    assert shown == [out.as_uri()]
    assert not (bundle / "report.html").exists()
    monkeypatch.setattr(webbrowser, "open", lambda url: False)
    assert "no browser was found: open" in mofa(bundle, "--open").stderr


@pytest.mark.parametrize(
    ("damage", "problem"),
    [("{", "cannot be read"), ("[]", "no report"), ('{"schema": "mofa-report/9"}', "mofa-report/9")],
)
def test_what_is_no_report_is_refused(bundle: Path, damage: str, problem: str) -> None:
    page = (bundle / "report.html").read_bytes()
    (bundle / "report.json").write_text(damage)
    result = mofa(bundle)
    assert result.exit_code == 1
    assert "report.json" in result.stderr and problem in result.stderr and result.stderr.count("\n") == 1
    assert (bundle / "report.html").read_bytes() == page


def test_images_that_are_not_there_are_named(bundle: Path) -> None:
    report = json.loads((bundle / "report.json").read_text())
    (bundle / "report.json").write_text(json.dumps({**report, "images": [image("a", None, None, 8)]}))
    result = mofa(bundle)
    assert result.exit_code == 0
    assert (
        result.stderr == f"warning: {bundle}/images/1-input.png is missing or damaged: the page says so in its place\n"
    )


def test_a_damaged_report_is_named(bundle: Path) -> None:
    report = json.loads((bundle / "report.json").read_text())
    (bundle / "report.json").write_text(json.dumps({**report, "before": {}}))
    result = mofa(bundle)
    assert result.exit_code == 1
    assert result.stderr == f"error: {bundle}/report.json is damaged: before.parameters: field required\n"
    (bundle / "report.json").write_text(json.dumps({**report, "checkpoint": 1}))
    assert "report.json is damaged: checkpoint: input should be a valid string" in mofa(bundle).stderr


def test_a_report_of_the_version_before_is_refused(bundle: Path) -> None:
    report = json.loads((bundle / "report.json").read_text())
    (bundle / "report.json").write_text(json.dumps({**report, "schema": "mofa-report/1"}))
    result = mofa(bundle)
    assert result.exit_code == 1
    version = report["versions"]["mofa-compiler"]
    assert f"which mofa-compiler {version} wrote" in result.stderr and "(mofa rewrite)" in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_schema_is_exported(bundle: Path) -> None:
    schema = json.loads(mofa("--schema").stdout)
    report = json.loads((bundle / "report.json").read_text())
    later = {"quality", "validation"}  # which older reports lack
    assert set(schema["properties"]) == set(schema["required"]) | later == set(report)
    validate(report, schema)
    with pytest.raises(ValidationError):
        validate({**report, "passes": [{}]}, schema)
    assert mofa("--schema", bundle).exit_code == mofa().exit_code == 2


def test_places_that_will_not_do(bundle: Path, tmp_path: Path) -> None:
    assert "it has no report.json" in mofa(tmp_path).stderr
    assert "is a file, not a bundle" in mofa(bundle / "report.json").stderr
    assert "there is no folder" in mofa(bundle, "--out", tmp_path / "no" / "page.html").stderr
    refused = mofa(bundle, "--out", bundle / "report.json")
    assert refused.exit_code == 2
    assert "does not end in .html" in refused.stderr
