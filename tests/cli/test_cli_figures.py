"""`mofa plot` and `mofa compare`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from mofa_compiler.cli import app
from tests.report.reports import report_of


@pytest.fixture(autouse=True)
def _bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, roadmap in (("a", "mofa"), ("b", "paper-nafnet")):
        Path(name).mkdir()
        Path(name, "report.json").write_text(json.dumps(report_of(roadmap)), encoding="utf-8")


def mofa(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


@pytest.mark.parametrize("kind", ["svg", "png", "pdf"])
@pytest.mark.parametrize("figure", ["flops", "roadmap", "unet", "pareto"])
@pytest.mark.sample(1)
def test_plot(figure: str, kind: str) -> None:
    out = Path(f"fig.{kind}")
    out.write_text("what was there")
    result = mofa("plot", figure, "a", *(["b/report.json"] if figure == "pareto" else []), "--out", str(out))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", f"saved to {out}\n")
    assert out.read_bytes().startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[kind])
    assert sorted(path.name for path in Path().iterdir()) == ["a", "b", out.name]


def test_plot_of_two_axes() -> None:
    assert mofa("plot", "pareto", "a", "b", "--x", "parameters", "--y", "macs", "--out", "f.svg", "-q").output == ""
    drawn = Path("f.svg").read_text(encoding="utf-8")
    assert ">parameters</text>" in drawn and ">MACs at 1x3x32x32</text>" in drawn
    assert ">a</text>" in drawn and ">b</text>" in drawn


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["flops", "a", "b", "--out", "f.svg"], 2, "draws one report, not 2"),
        (["flops", "a", "--x", "macs", "--out", "f.svg"], 2, "is for pareto"),
        (["flop", "a", "--out", "f.svg"], 2, "flop"),
        (["pareto", "a", "--x", "ms", "--out", "f.svg"], 1, "ms is not known of a: they were not measured"),
        (["flops", "a", "--out", "f.gif"], 2, "its name has to end in .png, .svg, .pdf"),
        (["flops", "a", "--out", "no/f.svg"], 1, "there is no folder no"),
        (["flops", "nowhere", "--out", "f.svg"], 1, "there is no nowhere"),
        (["flops", ".", "--out", "f.svg"], 1, "is not a bundle: it has no report.json"),
        (["flops", "plain.json", "--out", "f.svg"], 1, "plain.json is no report"),
        (["flops", "broken.json", "--out", "f.svg"], 1, "broken.json cannot be read as a report"),
        (["flops", "a", "--out", "a/kept.svg"], 1, "a/kept.svg is part of a, which is read: choose another --out"),
        (["unet", "a", "--out", "a/images/1-input.png"], 1, "a/images/1-input.png is part of a, which is read"),
    ],
)
def test_plot_errors(arguments: list[str], code: int, message: str) -> None:
    Path("plain.json").write_text("{}")
    Path("broken.json").write_text("{")
    Path("a/images").mkdir()
    for kept in ("a/kept.svg", "a/images/1-input.png"):
        Path(kept).write_text("kept")
    result = mofa("plot", *arguments)
    assert result.exit_code == code
    assert message in " ".join(result.stderr.replace("│", " ").split())
    assert not Path("f.svg").exists()
    assert Path("a/kept.svg").read_text() == Path("a/images/1-input.png").read_text() == "kept"


def test_what_analyze_prints_can_be_drawn() -> None:
    Path("plain.py").write_text("from torch import nn\ndef net(): return nn.Sequential(nn.Conv2d(3, 3, 3))\n")
    Path("cost.json").write_text(mofa("analyze", "plain.py:net", "--input", "1x3x16x16", "--json").stdout)
    for figure in ("flops", "unet"):
        assert mofa("plot", figure, "cost.json", "--out", f"{figure}.svg").exit_code == 0
    assert (
        "cost.json is of schema 'mofa-distribution/1'" in mofa("plot", "roadmap", "cost.json", "--out", "f.svg").stderr
    )


def test_a_damaged_report_is_named() -> None:
    report = json.loads(Path("a/report.json").read_text(encoding="utf-8"))
    for step in report["passes"]:
        del step["verdict"]
    Path("a/report.json").write_text(json.dumps(report), encoding="utf-8")
    Path("cost.json").write_text('{"schema": "mofa-distribution/1"}', encoding="utf-8")
    for arguments, file in (
        (("plot", "roadmap", "a", "--out", "f.svg"), "a/report.json"),
        (("plot", "flops", "cost.json", "--out", "f.svg"), "cost.json"),
        (("compare", "b", "a"), "a/report.json"),
    ):
        result = mofa(*arguments)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith(f"error: {file} is damaged: ") and result.stderr.count("\n") == 1
        assert "field required" in result.stderr
    assert not Path("f.svg").exists()


def test_compare_prints_and_writes() -> None:
    result = mofa("compare", "a", "b")
    assert result.exit_code == 0
    assert "From a to b: " in result.stdout
    data = json.loads(mofa("compare", "a", "b", "a", "--format", "json").stdout)
    assert data["schema"] == "mofa-comparison/1"
    assert [one["name"] for one in data["networks"]] == ["a", "b", "a (2)"]
    assert mofa("compare", "a", "b", "--format", "markdown").stdout.startswith("## NAFNet at 1x3x32x32, roadmaps ")
    written = mofa("compare", "a", "b", "--format", "html", "--out", "c.html")
    assert (written.exit_code, written.stdout, written.stderr) == (0, "", "saved to c.html\n")
    assert Path("c.html").read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["a"], 2, "at least two networks"),
        (["a", "b", "--out", "c.txt"], 2, "needs --format markdown, html or json"),
        (["a", "b", "--format", "json", "--verbose"], 2, "shows all of it anyway"),
        (["a", "c"], 1, "error: there is no c"),
        (["a", "b", "--format", "json", "--out", "b/report.json"], 1, "b/report.json is part of b"),
        (["a/report.json", "b", "--format", "markdown", "--out", "b/report.md"], 1, "b/report.md is part of b"),
    ],
)
def test_compare_errors(arguments: list[str], code: int, message: str) -> None:
    before = Path("b/report.json").read_text(encoding="utf-8")
    Path("b/report.md").write_text("kept")
    result = mofa("compare", *arguments)
    assert result.exit_code == code
    assert message in " ".join(result.stderr.replace("│", " ").split())
    assert Path("b/report.json").read_text(encoding="utf-8") == before
    assert Path("b/report.md").read_text() == "kept"
