"""`mofa recover`: what it prints where, what it leaves behind, and one clear line for everything that is wrong."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from mofa_compiler.cli import app
from mofa_compiler.cli.training import duration
from mofa_compiler.distillation import Options
from mofa_compiler.distillation.options import STEPS

UNET = str(Path(__file__).parents[2] / "examples" / "architectures" / "unet.py") + ":UNet"
ORIGINAL = ["--original", UNET, "--arg", "width=4", "--arg", "depth=1", "--checkpoint", "net.pth"]
SHORT = ["--patch", "16", "--steps", "6", "--batch", "2", "--validate-every", "3", "--lr", "0.003"]


@pytest.fixture
def mofa(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The command in a folder with a checkpoint, a bundle and photographs."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    Path("photos").mkdir()
    Path("empty").mkdir()
    for index in range(2):
        np.save(f"photos/{index}.npy", np.random.default_rng(index).random((3, 24, 24), np.float32))

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["recover", *arguments])

    return run


def test_it_trains_and_says_what_came_out(mofa: Callable[..., Result]) -> None:
    before = Path("out/model.safetensors").read_bytes()
    result = mofa("out", *ORIGINAL, "--data", "photos", *SHORT)
    assert result.exit_code == 0, result.output
    assert re.fullmatch(
        r"validation PSNR \d+\.\d\d → \d+\.\d\d dB \(against the original's output\), step \d of 6 steps in \d+ s\n",
        result.stdout,
    )
    weights, *lines, last, saved = result.stderr.splitlines()
    assert weights == "weights: net.pth" and saved == "saved to out"
    assert re.fullmatch(r"100 %, step 6, loss [\d.e-]+, PSNR \d+\.\d\d dB \(best \d+\.\d\d\), 0 s left", last), lines
    assert Path("out/model.safetensors").read_bytes() != before
    assert sorted(path.name for path in Path().iterdir()) == ["empty", "net.pth", "out", "photos"]


@pytest.mark.slow
def test_json_and_a_degradation(mofa: Callable[..., Result]) -> None:
    result = mofa("out", *ORIGINAL, "--data", "photos", "--degrade", "gaussian:25", *SHORT, "--json")
    document = json.loads(result.stdout)
    assert document["data"]["degradation"] == "gaussian:25" and document["psnr_original"] > 0
    assert document["settings"]["lr"] == 0.003 and document["history"][0]["loss"] is None
    assert json.loads(Path("out/report.json").read_text())["recoveries"] == [document]


@pytest.mark.slow
def test_nothing_better_is_said(mofa: Callable[..., Result]) -> None:
    result = mofa("out", *ORIGINAL, "--data", "photos", *SHORT[:-1], "1")
    assert "nothing better came of 6 steps" in result.stdout and result.stderr.endswith("out keeps its weights\n")


@pytest.mark.slow
def test_quiet(mofa: Callable[..., Result]) -> None:
    assert mofa("out", *ORIGINAL, "--data", "photos", *SHORT, "--quiet").output == ""


ERRORS: dict[str, tuple[list[str], str]] = {
    "no bundle": (["nowhere", *ORIGINAL, "--data", "photos"], "there is no nowhere"),
    "folder": (["photos", *ORIGINAL, "--data", "photos"], "photos is not a bundle: it has no recipe.json"),
    "architecture": (["out", "--original", UNET, "--arg", "width=8", "--data", "photos"], "is another one"),
    "no data": (["out", *ORIGINAL, "--data", "empty"], "empty holds no image"),
    "channels": (["out", *ORIGINAL, "--data", "photos", "--degrade", "raw:3200"], "the network takes 3"),
    "degradation": (["out", *ORIGINAL, "--data", "photos", "--degrade", "gauss:3"], "did you mean 'gaussian'"),
    "size": (["out", *ORIGINAL, "--data", "photos"], "too small for patches of 64x64"),
    "option": (["out", *ORIGINAL, "--data", "photos", "--lr", "-1"], "option lr=-1.0"),
}


@pytest.mark.parametrize(("arguments", "message"), ERRORS.values(), ids=ERRORS.keys())
@pytest.mark.sample(4)
def test_errors_come_in_one_line(mofa: Callable[..., Result], arguments: list[str], message: str) -> None:
    before = Path("out/model.safetensors").read_bytes()
    result = mofa(*arguments)
    assert result.exit_code == 1 and result.stdout == ""
    *_, error = result.stderr.splitlines()
    assert error.startswith("error: ") and message in error
    assert Path("out/model.safetensors").read_bytes() == before and not Path("out.recovery").exists()


@pytest.mark.slow
def test_steps_and_minutes_contradict(mofa: Callable[..., Result]) -> None:
    result = mofa("out", *ORIGINAL, "--data", "photos", "--steps", "3", "--minutes", "1")
    assert result.exit_code == 2 and "one of --steps and --minutes" in result.stderr


def test_help_says_the_defaults(mofa: Callable[..., Result]) -> None:
    text = " ".join(mofa("--help").stdout.split())
    shown = {"steps": STEPS, **{f.name: f.default for f in fields(Options) if f.name in ("batch", "lr", "clip")}}
    for name in ("features", "output", "target", "validate_every", "save_every"):
        shown[name] = getattr(Options(), name)
    for name, default in shown.items():
        assert re.search(rf"--{name.replace('_', '-')} [^-]*\b{default:g}\b", text), name


def test_durations() -> None:
    assert [duration(s) for s in (4.4, 59.6, 75, 7500)] == ["4 s", "1:00 min", "1:15 min", "2:05 h"]
