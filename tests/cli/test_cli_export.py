"""`mofa export`: what it prints where, and one clear line for everything that is wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from mofa_compiler.cli import app


@pytest.fixture
def mofa(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The command line in a folder with a bundle, 80 columns wide."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "path", list(sys.path))
    shutil.copytree(made / "out", "bundle")
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


@pytest.mark.slow
def test_a_dynamic_file(mofa: Callable[..., Result]) -> None:
    result = mofa("export", "bundle", "--to", "pt2", "--dynamic")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["operator", "calls", "layers"]
    assert any(line.split()[:2] == ["max_pool2d", "1"] for line in lines)
    assert "H and W from 4, any batch" in " ".join(result.stdout.split())
    assert "largest relative error at 1x3x16x16: 0.0e+00" in lines
    assert "largest relative error at 2x3x15x18: 0.0e+00" in lines
    assert any(line.startswith("note: padding computed from the input's size") for line in lines)
    assert max(map(len, lines)) <= 80
    assert Path("bundle.pt2").stat().st_size > 1000


def test_json(mofa: Callable[..., Result]) -> None:
    result = mofa("export", "bundle", "--to", "torchscript", "--out", "net.pt", "--input", "2x3x32x16", "--json")
    data = json.loads(result.stdout)
    assert (data["schema"], data["format"], data["inputs"]) == ("mofa-export/1", "torchscript", "2x3x32x16")
    assert data["size"] == Path("net.pt").stat().st_size
    assert data["dynamic"] is None
    assert data["relative_error"] == data["comparisons"][0]["relative_error"] < 1e-5
    assert {"kind": "max_pool2d", "backend": None, "count": 1, "layers": []} in data["operators"]


@pytest.mark.slow
def test_int8(mofa: Callable[..., Result]) -> None:
    arguments = ["--to", "onnx", "--precision", "int8", "--calibrate", "synthetic", "--degrade", "gaussian:25"]
    result = mofa("export", "bundle", *arguments, "--float", "inc")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "MiB in int8, for" in " ".join(result.stdout.split())
    lines = result.stdout.splitlines()
    assert "in float: inc" in lines
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--precision", "int8"], 1),
        (["--precision", "bf16"], 1),
        (["--precision", "int4"], 2),
        (["--calibrate", "synthetic"], 2),
        (["--precision", "int8", "--calibrate", "synthetic", "--float", "icn"], 1),
    ],
)
def test_precisions_that_cannot_be(mofa: Callable[..., Result], arguments: list[str], status: int) -> None:
    refused = mofa("export", "bundle", "--to", "onnx", *arguments)
    assert refused.exit_code == status and not Path("bundle.onnx").exists()


def test_quiet_and_overwrite(mofa: Callable[..., Result]) -> None:
    arguments = ("export", "bundle", "--to", "torchscript", "--quiet")
    assert (mofa(*arguments).output, mofa(*arguments).exit_code) == ("", 1)
    refused = mofa(*arguments)
    assert refused.stderr.endswith(
        "bundle.pt exists: --overwrite (in Python: overwrite=True) replaces it, or choose another file\n"
    )
    again = mofa(*arguments, "--overwrite")
    assert (again.output, again.exit_code) == ("", 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bundle", "--to", "onxx"], "error: there is no format 'onxx' (did you mean 'onnx'?)"),
        (["nowhere", "--to", "pt2"], "error: there is no nowhere"),
        (["bundle", "--to", "pt2", "--out", "net.onnx"], "error: net.onnx: a file of PT2 ends in .pt2"),
        (
            ["bundle", "--to", "pt2", "--out", "bundle/model.py", "--overwrite"],
            "error: bundle/model.py: a file of PT2 ",
        ),
        (["bundle", "--to", "pt2", "--input", "1x4x16x16"], "error: UNet cannot be run on 1x4x16x16: "),
    ],
)
def test_errors(mofa: Callable[..., Result], arguments: list[str], message: str) -> None:
    result = mofa("export", *arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(message)
    assert len(result.stderr.splitlines()) == 1
    assert sorted(os.listdir()) == ["bundle"]


def test_wrong_usage(mofa: Callable[..., Result]) -> None:
    assert mofa("export", "bundle").exit_code == 2
    assert mofa("export", "bundle", "--to", "pt2", "--quiet", "--json").exit_code == 2
    assert mofa("export", "bundle", "--to", "pt2", "--input", "large").exit_code == 2


@pytest.mark.slow
def test_nothing_but_results_is_seen_of_a_talkative_exporter(mofa: Callable[..., Result]) -> None:
    command = [sys.executable, "-m", "mofa_compiler.cli", "export", "bundle", "--to", "executorch", "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout)["comparisons"][0]["relative_error"] < 1e-5
    told = [line for line in ran.stderr.splitlines() if not line.startswith("exporting: ")]  # on a slow machine
    assert told == []
