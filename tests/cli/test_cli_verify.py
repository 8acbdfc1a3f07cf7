"""`mofa verify`: what it prints where, and one clear line for everything that is wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from architectures import UNet
from mofa_compiler.cli import app
from mofa_compiler.rewriting.registry import available
from tests.verification.broken import Broken

ARCHITECTURES = Path(__file__).parents[2] / "examples" / "architectures"
ORIGINAL = ["--original", f"{ARCHITECTURES}/unet.py:UNet", "--arg", "width=4", "--arg", "depth=1"]


@pytest.fixture
def mofa(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The command line in a folder with a checkpoint, 80 columns wide."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "path", list(sys.path))
    torch.manual_seed(0)
    model = UNet(width=4, depth=1)
    save_file(model.state_dict(), tmp_path / "net.safetensors")
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


@pytest.fixture
def bundle(mofa: Callable[..., Result]) -> str:
    target, *arguments = ORIGINAL[1:]
    told = ["--as-told", "--calibrate", "none", "--engine", "eager"]
    shape = ["--input", "1x3x16x16", "--checkpoint", "net.safetensors", *told, "--out", "bundle"]
    assert mofa("rewrite", target, *arguments, *shape, "--quiet").exit_code == 0
    return "bundle"


def weights(*more: str) -> list[str]:
    return [*ORIGINAL, "--checkpoint", "net.safetensors", *more]


@pytest.mark.parametrize("width", [80, 120])
def test_a_good_bundle(mofa: Callable[..., Result], bundle: str, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    result = mofa("verify", bundle, *weights())
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("Output errors on the random example input 1x3x16x16\n")
    assert "\nok      weights       all " in result.stdout
    assert "FAILED" not in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= width
    assert (mofa("verify", bundle, *weights("--quiet")).output, result.exit_code) == ("", 0)


def test_json(mofa: Callable[..., Result], bundle: str) -> None:
    data = json.loads(mofa("verify", bundle, *weights("--json")).stdout)
    assert (data["schema"], data["ok"], data["problems"]) == ("mofa-verification/1", True, [])
    assert [step["name"] for step in data["passes"]][:2] == ["sepconv-to-pconv", "widen-portion"]
    assert data["output"]["relative_error"] > 0
    assert all(check["ok"] for check in data["checks"])


def test_half_precision(mofa: Callable[..., Result], bundle: str) -> None:
    data = json.loads(mofa("verify", bundle, *weights("--precision", "fp16", "--json")).stdout)
    (check,) = (check for check in data["checks"] if check["name"] == "fp16")
    assert check["ok"] and "overflows" in check["detail"]
    assert mofa("verify", bundle, *weights("--precision", "int8")).exit_code == 2


@pytest.mark.slow
def test_inputs_of_ones_own(mofa: Callable[..., Result], bundle: str) -> None:
    np.save("inputs.npy", np.random.default_rng(0).random((5, 3, 16, 24), dtype=np.float32))
    result = mofa("verify", bundle, *weights("--inputs", "inputs.npy"))
    assert result.exit_code == 0
    assert result.stdout.startswith("Output errors on the 5 inputs of 3x16x24 in 2 batches (inputs.npy)\n")
    made = ["--inputs", "synthetic", "--degrade", "gaussian:25", "--crops", "2", "--crop-size", "16", "--json"]
    synthetic = mofa("verify", bundle, *weights(*made))
    assert json.loads(synthetic.stdout)["measured_on"] == "input (synthetic, gaussian:25) 2x3x16x16"


@pytest.mark.slow
def test_a_bundle_that_was_tampered_with(mofa: Callable[..., Result], bundle: str) -> None:
    file = Path(bundle, "model.safetensors")
    tensors = load_file(file)
    tensors["outc.weight"] = tensors["outc.weight"] * 1.5
    save_file(tensors, file)
    result = mofa("verify", bundle, *weights())
    assert result.exit_code == 1
    assert "FAILED  weights" in result.stdout
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith(
        "error: bundle: model.safetensors was not written by mofa-compiler, and outc.weight"
    )
    assert mofa("verify", bundle, *weights("--trained")).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--original", f"{ARCHITECTURES}/nafnet.py:NAFNet"], "is another one"),
        ([*ORIGINAL[:-1], "depth=2"], "is another one"),
        ([*ORIGINAL, "--checkpoint", "nowhere.pth"], "nowhere.pth"),
        ([*ORIGINAL, "--inputs", "nowhere"], "no folder or file nowhere"),
    ],
)
@pytest.mark.sample(2)
def test_what_does_not_fit(mofa: Callable[..., Result], bundle: str, arguments: list[str], message: str) -> None:
    result = mofa("verify", bundle, *arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert message in result.stderr.splitlines()[-1]


def test_no_bundle(mofa: Callable[..., Result]) -> None:
    result = mofa("verify", "nowhere", *ORIGINAL)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("error: there is no ")
    assert mofa("verify", "nowhere").exit_code == 2
    assert mofa("verify", "nowhere", *ORIGINAL, "--degrade", "gaussian:25").exit_code == 2
    assert mofa("verify", "nowhere", *ORIGINAL, "--inputs", "a.npy", "--crops", "2").exit_code == 2


def test_a_rewrite_by_a_broken_pass_is_not_saved(mofa: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    passes = {**available(), "broken": Broken}
    monkeypatch.setattr("mofa_compiler.rewriting.roadmap.available", lambda: passes)
    Path("broken.toml").write_text('[[pass]]\nname = "broken"\npath = "downs.0.1.3"\nhow = "reference"\n')
    target, *arguments = ORIGINAL[1:]
    result = mofa(
        *("rewrite", target, *arguments, "--input", "1x3x16x16", "--roadmap", "broken.toml", "--out", "bundle"),
        *("--checkpoint", "net.safetensors", "--as-told", "--calibrate", "none", "--engine", "eager"),
    )
    assert result.exit_code == 1
    assert "NOT exact" in result.stdout
    line = result.stderr.splitlines()[-1]
    assert line.startswith("error: broken was declared exact, but the whole network's output is off by")
    assert "from layer 'downs.0.1.3' (" in line
    assert line.endswith("a bug in this pass; nothing was saved")
    assert not Path("bundle").exists()
