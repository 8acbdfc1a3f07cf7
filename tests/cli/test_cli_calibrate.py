"""`mofa rewrite --calibrate`: what `apply` is given, and what is refused before it is called."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from mofa_compiler import compiler
from mofa_compiler.cli import app
from mofa_compiler.data import CalibrationImages

NETWORKS = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, channels=3, dtype=torch.float32):
        super().__init__()
        self.layers = nn.Sequential(*(nn.Conv2d(channels, channels, 3, padding=1, dtype=dtype) for _ in range(3)))

    def forward(self, x):
        return self.layers(x)


class Halves(Net):
    def forward(self, x):
        return x + self.layers(x).unflatten(2, (-1, 16)).flatten(2, 3)


class Two(Net):
    def forward(self, x, y):
        return self.layers(x + y)
"""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What `apply` was given to calibrate on; the rewriting itself goes on without."""
    given: list[Any] = []
    real = compiler.apply

    def apply(model: Any, roadmap: Any, example: Any = None, calibration: Any = None, **options: Any) -> Any:
        given.append(calibration)
        return real(model, roadmap, example, **options)

    monkeypatch.setattr(compiler, "apply", apply)
    return given


@pytest.fixture
def mofa(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[Any]) -> Callable[..., Result]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("nets.py").write_text(NETWORKS)
    Path("photos").mkdir()
    for number in range(3):
        np.save(f"photos/{number}.npy", np.random.default_rng(number).random((3, 140, 150), dtype=np.float32))

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["rewrite", *arguments, "--dry-run"])

    return run


def test_nothing_is_calibrated_unasked(mofa: Callable[..., Result], calls: list[Any]):
    assert mofa("nets.py:Net", "--input", "1x3x16x16").exit_code == 0
    assert calls == [None]


def test_the_defaults(mofa: Callable[..., Result], calls: list[Any]):
    result = mofa("nets.py:Net", "--calibrate", "photos")
    assert result.exit_code == 0, result.stderr
    assert "calibration: 64 crops of 128x128, photos, seed 0\n" in result.stderr
    (images,) = calls
    assert isinstance(images, CalibrationImages)
    assert images.description == {"source": "photos", "degradation": None, "crops": 64, "size": 128, "seed": 0}


def test_every_option_arrives(mofa: Callable[..., Result], calls: list[Any]):
    options = ["--degrade", "raw:3200,6400", "--crops", "6", "--crop-size", "48", "--seed", "5", "--quiet"]
    result = mofa("nets.py:Net", "--arg", "channels=4", "--calibrate", "photos", *options)
    assert (result.exit_code, result.stderr) == (0, "")
    assert calls[0].description == {
        "source": "photos",
        "degradation": "raw:3200,6400",
        "crops": 6,
        "size": 48,
        "seed": 5,
    }
    assert torch.cat(list(calls[0])).shape == (6, 4, 48, 48)


def test_crops_are_no_larger_than_the_input(mofa: Callable[..., Result], calls: list[Any]):
    assert mofa("nets.py:Net", "--input", "1x3x32x64", "--calibrate", "synthetic", "--crops", "2").exit_code == 0
    assert [tuple(batch.shape) for batch in calls[0]] == [(2, 3, 32, 32)]


def test_inputs_of_ones_own(mofa: Callable[..., Result], calls: list[Any]):
    np.save("inputs.npy", np.zeros((3, 3, 24, 40), np.float32))
    result = mofa("nets.py:Net", "--calibrate", "inputs.npy")
    assert result.exit_code == 0, result.stderr
    assert "calibration: 3 inputs of inputs.npy\n" in result.stderr
    assert [tuple(batch.shape) for batch in calls[0]] == [(3, 3, 24, 40)]


def test_networks_in_double_precision(mofa: Callable[..., Result], calls: list[Any]):
    Path("more.py").write_text("import torch, nets\n\n\ndef double():\n    return nets.Net(dtype=torch.float64)\n")
    result = mofa("more.py:double", "--input", "1x3x16x16", "--calibrate", "synthetic", "--crops", "1")
    assert result.exit_code == 0, result.stderr


REFUSED: dict[str, tuple[list[str], str]] = {
    "no source": (["--calibrate", "nowhere"], "error: no folder or file nowhere (or the word synthetic)"),
    "degradation": (
        ["--calibrate", "photos", "--degrade", "gausian:3"],
        "error: there is no degradation 'gausian' (did you mean 'gaussian'?)",
    ),
    "channels": (["--arg", "channels=4", "--calibrate", "photos"], "0.npy has 3 channels, where 4 are needed"),
    "raw channels": (["--calibrate", "photos", "--degrade", "raw:800"], "raw:800 makes packed RGGB images of 4"),
    "too large": (["--calibrate", "photos", "--crop-size", "200"], "0.npy is 140x150, too small for patches of"),
}


@pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_before_any_work(mofa: Callable[..., Result], calls: list[Any], arguments: list[str], message: str):
    result = mofa("nets.py:Net", *arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert not calls


def test_a_size_that_the_network_does_not_take(mofa: Callable[..., Result], calls: list[Any]):
    result = mofa("nets.py:Halves", "--input", "1x3x32x32", "--calibrate", "synthetic", "--crop-size", "24")
    assert result.exit_code == 1
    assert "error: the network does not take 1x3x24x24 from synthetic (RuntimeError: " in result.stderr
    assert result.stderr.endswith("choose another --crop-size, a multiple of 32 say\n")
    np.save("inputs.npy", np.zeros((1, 3, 24, 24), np.float32))
    result = mofa("nets.py:Halves", "--input", "1x3x32x32", "--calibrate", "inputs.npy")
    assert result.exit_code == 1
    assert result.stderr.endswith(": crop the inputs\n")
    assert not calls


def test_networks_of_several_inputs(mofa: Callable[..., Result], calls: list[Any]):
    result = mofa("nets.py:Two", "--input", "1x3x16x16", "--input", "1x3x16x16", "--calibrate", "synthetic")
    assert result.exit_code == 1
    assert "this takes 1x3x16x16, 1x3x16x16: give --calibrate FILE.npz" in result.stderr
    assert not calls


@pytest.mark.parametrize("names", [(), ("y", "x")], ids=["in order", "by name"])
def test_an_array_for_each_of_several_inputs(mofa: Callable[..., Result], calls: list[Any], names: tuple[str, ...]):
    arrays = [np.full((6, 3, 16, 16), value, np.float32) for value in ((1.0, 0.0) if names else (0.0, 1.0))]
    np.savez("inputs.npz", *([] if names else arrays), **dict(zip(names, arrays, strict=True)) if names else {})
    result = mofa("nets.py:Two", "--input", "1x3x16x16", "--input", "1x3x16x16", "--calibrate", "inputs.npz")
    assert result.exit_code == 0, result.stderr
    batches = list(calls[0])
    assert [[(len(x), float(x.mean())) for x in batch.args] for batch in batches] == [
        [(4, 0.0), (4, 1.0)],
        [(2, 0.0), (2, 1.0)],
    ]


def test_arrays_that_are_not_as_many_as_the_inputs(mofa: Callable[..., Result], calls: list[Any]):
    np.savez("inputs.npz", np.zeros((6, 3, 16, 16), np.float32))
    result = mofa("nets.py:Two", "--input", "1x3x16x16", "--input", "1x3x16x16", "--calibrate", "inputs.npz")
    assert result.exit_code == 1 and "holds 1 arrays, and the network takes 2 inputs" in result.stderr
    np.savez("inputs.npz", np.zeros((6, 3), np.float32), np.zeros((5, 3), np.float32))
    result = mofa("nets.py:Two", "--input", "1x3x16x16", "--input", "1x3x16x16", "--calibrate", "inputs.npz")
    assert result.exit_code == 1 and "the same number of examples" in result.stderr
    assert not calls


@pytest.mark.parametrize("option", ["--degrade=gaussian:3", "--crops=3", "--crop-size=3", "--seed=3"])
def test_options_that_need_calibrate(mofa: Callable[..., Result], option: str):
    result = mofa("nets.py:Net", option)
    assert result.exit_code == 2
    assert f"Invalid value for {option.partition('=')[0]}: needs --calibrate" in result.stderr
    result = mofa("nets.py:Net", option, "--calibrate", "inputs.npy")
    assert result.exit_code == 2
    assert f"Invalid value for {option.partition('=')[0]}: inputs.npy holds network inputs" in result.stderr
