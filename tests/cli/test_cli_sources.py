"""Architectures where bundles are taken, inputs from a file, and a roadmap of no passes, on the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from mofa_compiler.cli import app

NET = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        torch.manual_seed(0)
        self.inp, self.down = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, width, 2, 2)
        self.mid, self.up = nn.Conv2d(width, width, 3, padding=1), nn.ConvTranspose2d(width, width, 2, 2)
        self.out = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x):
        y = self.inp(x)
        return x + self.out(y + self.up(self.mid(self.down(y))))


class Flags(Net):
    def forward(self, x, mask=None, residual=True, scale=1, steps=None, more=()):
        y = super().forward(x) * scale
        if mask is not None:
            y = y * mask
        if steps is not None:
            y = y + steps.float().sum()
        for one in more:
            y = y + one
        return y + x if residual else y


def example():
    return torch.rand(1, 3, 16, 16), None, False, 3, torch.tensor([3, 4]), [torch.rand(1, 1, 16, 16)]
"""
INPUTS = {
    "args": [{"shape": [1, 3, 16, 16]}, None, False, 2],
    "kwargs": {"steps": {"shape": [0], "dtype": "int64"}, "more": [{"shape": [1, 1, 16, 16], "dtype": "float32"}]},
}
SMALL = ("--input", "1x3x16x16")


@pytest.fixture
def mofa(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The command line in a folder with an architecture, files of inputs and an empty roadmap."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("net.py").write_text(NET)
    Path("in.json").write_text(json.dumps(INPUTS))
    Path("none.toml").write_text("")
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def done(result: Result) -> Result:
    assert result.exit_code == 0, result.output
    return result


@pytest.mark.slow
def test_a_roadmap_of_no_passes_is_the_original_as_a_bundle(mofa: Callable[..., Result]) -> None:
    result = done(mofa("rewrite", "net.py:Net", "--roadmap", "none.toml", *SMALL, "--out", "same"))
    assert "Nothing to rewrite: the network is unchanged." in result.stdout
    verified = json.loads(done(mofa("verify", "same", "--original", "net.py:Net", "--json")).stdout)
    assert verified["ok"] and verified["output"]["relative_error"] == 0
    decided = ("--roadmap", "none.toml", "--engine", "eager", *SMALL, "--dry-run")
    assert "Nothing to rewrite" in done(mofa("rewrite", "net.py:Net", *decided)).stdout
    calibrated = ("--roadmap", "none.toml", "--calibrate", "synthetic", "--crops", "2", *SMALL, "--dry-run")
    assert "Nothing to rewrite" in done(mofa("rewrite", "net.py:Net", *calibrated)).stdout


def test_an_architecture_is_exported_with_its_weights(mofa: Callable[..., Result]) -> None:
    torch.manual_seed(1)
    state = {"conv." + name: torch.rand(shape) for name, shape in {"weight": (2, 3, 1, 1), "bias": (2,)}.items()}
    torch.save({"params": state}, "net.pth")
    Path("one.py").write_text(
        "from torch import nn\n\n\nclass One(nn.Module):\n    def __init__(self, width):\n        super().__init__()\n"
        "        self.conv = nn.Conv2d(3, width, 1)\n\n    def forward(self, x):\n        return self.conv(x)\n"
    )
    result = done(
        mofa("export", "one.py:One", "--to", "torchscript", "--arg", "width=2", "--checkpoint", "net.pth", *SMALL)
    )
    assert result.stderr == "weights: params of net.pth\n"
    x = torch.rand(1, 3, 16, 16)
    expected = torch.nn.functional.conv2d(x, state["conv.weight"], state["conv.bias"])
    torch.testing.assert_close(torch.jit.load("One.pt")(x), expected)
    bare = mofa("export", "one.py:One", "--to", "torchscript", "--arg", "width=2", "--out", "bare.pt", *SMALL)
    assert done(bare).stderr.startswith("warning: no --checkpoint")


@pytest.mark.slow
def test_an_architecture_is_compared_and_drawn(mofa: Callable[..., Result]) -> None:
    done(mofa("rewrite", "net.py:Net", *SMALL, "--out", "fast", "--quiet"))
    data = json.loads(done(mofa("compare", "net.py:Net", "fast", "--format", "json")).stdout)
    assert [one["name"] for one in data["networks"]] == ["Net", "fast"]
    assert {one["inputs"] for one in data["networks"]} == {"1x3x16x16"}
    assert data["same_original"]
    assert data["networks"][0]["rewritten"]["macs"] == data["networks"][1]["original"]["macs"]
    wider = json.loads(done(mofa("compare", "net.py:Net", "fast", "--arg", "width=16", "--format", "json")).stdout)
    assert not wider["same_original"]
    for figure in ("flops", "unet", "roadmap"):
        done(mofa("plot", figure, "net.py:Net", *SMALL, "--out", f"{figure}.svg"))
        assert Path(f"{figure}.svg").stat().st_size > 1000
    done(mofa("plot", "pareto", "net.py:Net", "fast", "--x", "macs", "--y", "parameters", "--out", "pareto.svg"))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["export", "nowhere.py:Net", "--to", "pt2"], 1, "there is no file nowhere.py"),
        (["export", "net.py:Nett", "--to", "pt2"], 1, "net.py has no 'Nett' (did you mean 'Net'?)"),
        (["export", "net.py:Net", "--to", "onxx"], 1, "there is no format 'onxx'"),
        (["export", "bundle", "--to", "pt2", "--arg", "width=3"], 2, "--arg"),
        (["export", "bundle", "--to", "pt2", "--key", "ema"], 2, "--key"),
        (["compare", "a", "b", "--checkpoint", "net.pth"], 2, "--checkpoint"),
        (["compare", "net.py:Net", "net.py:Flags", "--checkpoint", "net.pth"], 2, "there are 2"),
        (["compare", "net.py:Net", "net.py:Net", "--key", "ema"], 2, "--key"),
        (["plot", "unet", "bundle", "--out", "x.svg", *SMALL], 2, "--input"),
        (["compare", "net.py:Net", "nowhere"], 1, "there is no nowhere"),
        (["capture", "net.py:Net", "--input", "in.json", *SMALL], 2, "a file such as in.json has all inputs"),
        (["capture", "net.py:Net", "--input", "no.json"], 1, "cannot read the inputs no.json"),
        (["lint", "net.py:Net", "--input", "no.json"], 2, "cannot read the inputs no.json"),
        (["capture", "net.py:Net", "--input", "in.json"], 1, "6 example inputs were given"),
        (["measure", "net.py:Flags", "--engine", "eager", "--input", "in.json"], 1, "engines take tensors"),
        (
            ["rewrite", "net.py:Flags", "--engine", "eager", "--dry-run", "--input", "in.json"],
            1,
            "engines take tensors",
        ),
        (["rewrite", "net.py:Flags", "--dry-run", "--calibrate", "synthetic", "--input", "in.json"], 1, "one image"),
    ],
)
def test_what_is_wrong(mofa: Callable[..., Result], arguments: list[str], code: int, message: str) -> None:
    result = mofa(*arguments)
    assert result.exit_code == code
    assert message in " ".join(result.stderr.replace("│", " ").split())


@pytest.mark.slow
def test_inputs_from_a_file_reach_every_command(mofa: Callable[..., Result]) -> None:
    captured = json.loads(done(mofa("capture", "net.py:Flags", "--json", "--input", "in.json")).stdout)
    assert [one["shape"] for one in captured["inputs"] if one["shape"] is not None] == [
        [1, 3, 16, 16],
        [0],
        [1, 1, 16, 16],
    ]
    given = ("net.py:Flags", "--input", "in.json")
    assert done(mofa("analyze", *given, "--json"))
    done(mofa("rewrite", *given, "--out", "fast", "--quiet"))
    recorded = json.loads(Path("fast/recipe.json").read_text())["inputs"]
    assert [one.get("value", one) for one in recorded["args"][1:]] == [None, False, 2]
    assert recorded["kwargs"]["steps"] == {"shape": [0], "dtype": "int64"}
    done(mofa("export", *given, "--to", "pt2"))
    done(mofa("export", "fast", "--input", "in.json", "--to", "pt2"))
    done(mofa("compare", "net.py:Flags", "fast"))
    done(mofa("plot", "unet", *given, "--out", "unet.svg"))
    assert mofa("lint", *given, "--select", "MOFA202").exit_code == 1


@pytest.mark.slow
def test_tensors_from_a_file_are_measured(mofa: Callable[..., Result]) -> None:
    for name, data in {
        "position": {"args": [{"shape": [1, 3, 8, 8]}]},
        "name": {"kwargs": {"x": {"shape": [1, 3, 8, 8]}}},
    }.items():
        Path(f"{name}.json").write_text(json.dumps(data))
        measured = mofa(
            "measure", "net.py:Net", "--engine", "eager", "--seconds", "0.1", "--input", f"{name}.json", "--json"
        )
        assert json.loads(done(measured).stdout)["inputs"] == [{"shape": [1, 3, 8, 8], "dtype": "float32"}]


def test_python_makes_inputs(mofa: Callable[..., Result]) -> None:
    captured = json.loads(done(mofa("capture", "net.py:Flags", "--json", "--input", "net.py:example")).stdout)
    same = json.loads(done(mofa("capture", "net.py:Flags", "--json", "--input", "net.py")).stdout)
    assert captured["inputs"] == same["inputs"]
    assert captured["inputs"][4]["dtype"] == "int64"


def test_a_configuration_names_a_file_of_inputs(mofa: Callable[..., Result]) -> None:
    Path("mofa.toml").write_text('[[models]]\ntarget = "net.py:Flags"\ninput = "in.json"\nselect = ["MOFA202"]\n')
    data = json.loads(mofa("lint", "--output-format", "json").stdout)
    assert "1x3x16x16, 0, 1x1x16x16" in json.dumps(data)
    Path("mofa.toml").write_text('[[models]]\ntarget = "net.py:Flags"\ninput = "no.json"\n')
    result = mofa("lint")
    assert (result.exit_code, result.stderr) == (2, result.stderr)
    assert "mofa.toml:3: models.input: cannot read the inputs" in result.stderr
