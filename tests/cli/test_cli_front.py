"""`mofa front`: what it prints where, what it passes on, and one clear line for everything that is wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from architectures import UNet
from mofa_compiler import Bound, apply, frontier
from mofa_compiler.cli import app
from mofa_compiler.report.priced import Front
from mofa_compiler.runtime import usual_engine
from tests.autotune.small import depthwise_taps, invent, invent_race

UNET = str(Path(__file__).parents[2] / "examples" / "architectures" / "unet.py") + ":UNet"
SMALL = [UNET, "--arg", "width=4", "--arg", "depth=1", "--input", "1x3x16x16"]


@pytest.fixture
def mofa(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The command line in an empty folder, 80 columns wide, with invented times."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "path", list(sys.path))
    invent(monkeypatch, depthwise_taps)
    invent_race(monkeypatch, depthwise_taps)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["front", *SMALL, "--out", "front", *arguments])

    return run


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What `front` was called with; it makes nothing."""
    calls: list[dict[str, Any]] = []

    def front(model: Any, roadmap: Any, example: Any, calibration: Any, **options: Any) -> Any:
        calls.append({"roadmap": roadmap, "calibration": calibration, **options})
        raise KeyboardInterrupt

    monkeypatch.setattr(frontier, "front", front)
    return calls


@pytest.mark.slow
def test_a_front_is_made_shown_and_made_anew_from_what_is_there(mofa: Callable[..., Result]) -> None:
    torch.manual_seed(0)
    model = UNet(width=4, depth=1).eval()
    torch.save(model.state_dict(), "net.pth")
    apply(model, "mofa", torch.rand(1, 3, 16, 16)).save("mine")
    common = ["--checkpoint", "net.pth", "--crops", "4", "--psnrs-to-original", "30dB,20", "--with", "mine"]
    done = mofa(*common, "--all")
    assert done.exit_code == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    lines = done.stdout.splitlines()
    assert {"original", "exact", "30dB", "20dB", "mine"} <= {line.split()[0] for line in lines if line.strip()}
    assert done.stderr.startswith("weights: net.pth\n") and "front/front.html" in done.stderr
    again = mofa(*common, "--json")
    assert again.exit_code == 0, again.stderr
    data = Front.model_validate(json.loads(again.stdout))
    assert [one.name for one in data.points] == ["original", "exact", "30dB", "20dB", "mine"]
    assert data.conditions.engine == usual_engine()
    silent = mofa(*common, "--quiet")
    assert (silent.exit_code, silent.output) == (0, "")
    other = mofa(*common, "--seed", "1")
    assert other.exit_code == 1 and "--overwrite" in other.stderr


def test_the_defaults(mofa: Callable[..., Result], given: list[dict[str, Any]]) -> None:
    assert mofa().exit_code == 130
    (call,) = given
    assert call["out"] == Path("front") and call["bounds"] == [] and call["recover_minutes"] == 0
    assert call["calibration"].description["source"] == "synthetic"
    assert (call["roadmap"].name, call["roadmap"].target.engine) == ("mofa", usual_engine())
    assert not call["overwrite"]


def test_every_option_arrives(mofa: Callable[..., Result], given: list[dict[str, Any]]) -> None:
    images = ["--degrade", "gaussian:15", "--crops", "6", "--crop-size", "8", "--seed", "3"]
    mofa(
        "--losses",
        "0.1dB,0.5",
        "--engine",
        "eager",
        "--threads",
        "2",
        "--recover-minutes",
        "1.5",
        "--overwrite",
        *images,
    )
    (call,) = given
    assert call["bounds"] == [Bound("loss", 0.1), Bound("loss", 0.5)]
    assert (call["roadmap"].target.engine, call["roadmap"].target.threads) == ("eager", 2)
    assert call["recover_minutes"] == 1.5 and call["overwrite"]
    described = {"source": "synthetic", "degradation": "gaussian:15", "crops": 6, "size": 8, "seed": 3}
    assert call["calibration"].description == described


def test_bounds_on_labels(mofa: Callable[..., Result], given: list[dict[str, Any]]) -> None:
    np.save("inputs.npy", np.zeros((3, 3, 16, 16), np.float32))
    mofa("--agreements", "99.5%, 98", "--calibrate", "inputs.npy")
    assert [(one.measure, one.limit) for one in given[0]["bounds"]] == [("agreement", 0.995), ("agreement", 0.98)]


USAGE_ERRORS: dict[str, tuple[list[str], str]] = {
    "no clean images": (["--losses", "0.1"], "needs --degrade"),
    "two kinds": (["--losses", "0.1", "--degrade", "gaussian:1", "--agreements", "99"], "is a second kind of bound"),
    "loss": (["--losses", "0.1,x", "--degrade", "gaussian:1"], "is not a loss such as 0.15dB"),
    "empty": (["--psnrs-to-original", ""], "is not a PSNR such as 45dB"),
    "nothing to judge by": (["--calibrate", "none"], "quality is measured on inputs"),
    "quiet": (["--quiet", "--json"], "contradicts --quiet"),
    "quiet and all": (["--quiet", "--all"], "contradicts --quiet"),
    "minutes": (["--recover-minutes", "-1"], "--recover-minutes"),
}


@pytest.mark.parametrize(("arguments", "message"), USAGE_ERRORS.values(), ids=USAGE_ERRORS.keys())
def test_wrong_usage(
    mofa: Callable[..., Result], given: list[dict[str, Any]], arguments: list[str], message: str
) -> None:
    result = mofa(*arguments)
    assert result.exit_code == 2
    assert result.stdout == "" and given == []
    assert message in " ".join(result.stderr.replace("│", " ").split())


def occupied() -> None:
    Path("front").mkdir()
    Path("front", "notes.txt").touch()


INPUT_ERRORS: dict[str, tuple[Callable[[], Any], list[str], str]] = {
    "no checkpoint": (lambda: None, ["--checkpoint", "no.pth"], "error: there is no file no.pth"),
    "occupied": (occupied, ["--overwrite"], "front holds something else than a front"),
    "a file": (lambda: Path("front").touch(), [], "front is a file, not a folder"),
    "no bundle": (lambda: None, ["--with", "nowhere"], "there is no "),
    "no images": (lambda: None, ["--calibrate", "nowhere"], "error: no folder or file nowhere"),
}


@pytest.mark.parametrize(("prepare", "arguments", "message"), INPUT_ERRORS.values(), ids=INPUT_ERRORS.keys())
def test_an_error_in_the_input_is_one_clear_message(
    mofa: Callable[..., Result], prepare: Callable[[], Any], arguments: list[str], message: str
) -> None:
    prepare()
    result = mofa("--crops", "2", *arguments)
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    errors = result.stderr[result.stderr.index("error: ") :]
    assert message in errors and "Traceback" not in errors
    assert not Path("front", "front.json").exists()
