"""`--eval` and `--accept-loss`: a result is judged on images of one's own, and a loss is named before it is saved."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner, Result

from mofa_compiler import apply
from mofa_compiler.autotune.held_out import COUNT
from mofa_compiler.cli import app
from mofa_compiler.cli.judging import refusal, too_much
from mofa_compiler.report.reading import read_report
from mofa_compiler.result.quality import Quality

PLAIN = """
from torch import nn


def net():
    first, second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
    return nn.Sequential(first, nn.ReLU(), second, nn.Conv2d(16, 3, 1))
"""
NETWORK = ["plain.py:net", "--input", "1x3x16x16", "--checkpoint", "c.pth"]
TOLD = ["--as-told", "--engine", "eager"]
UNFITTED = [*NETWORK, *TOLD, "--calibrate", "none"]


@pytest.fixture
def mofa(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The command line in a folder with a checkpoint of random weights and three images."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("plain.py").write_text(PLAIN)
    scope: dict[str, Any] = {}
    exec(PLAIN, scope)
    torch.manual_seed(0)
    torch.save(scope["net"]().state_dict(), "c.pth")
    Path("val").mkdir()
    for index in range(3):
        np.save(f"val/{index}.npy", np.random.default_rng(index).random((3, 16, 24), dtype=np.float32))

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["rewrite", *arguments])

    return run


@pytest.mark.slow
def test_a_loss_is_refused_before_anything_is_written(mofa: Callable[..., Result]) -> None:
    given = [*UNFITTED, "--eval", "val"]
    refused = mofa(*given, "--out", "bundle")
    assert refused.exit_code == 1 and not Path("bundle").exists()
    error = refused.stderr.splitlines()[-1]
    for part in ("dB to the original", "3 images of val", "42 dB", "--accept-loss", "--min-psnr-to-original"):
        assert part in error
    told = mofa(*given, "--dry-run", "--json")
    assert told.exit_code == 0
    validation = json.loads(told.stdout)["validation"]
    assert validation["measure"] == "psnr" and validation["value"] < 42 and not validation["acceptable"]
    accepted = mofa(*given, "--out", "bundle", "--accept-loss")
    assert accepted.exit_code == 0, accepted.stderr
    assert read_report(Path("bundle")).validation is not None
    first = Path("bundle", "report.md").read_text(encoding="utf-8").splitlines()[2]
    assert "mofa recover" in first


@pytest.mark.slow
def test_pairs_are_compared_with_their_targets(mofa: Callable[..., Result]) -> None:
    Path("pairs").mkdir()
    for side in ("input", "target"):
        Path("pairs", side).mkdir()
        np.save(f"pairs/{side}/a.npy", np.load("val/0.npy"))
    told = mofa(*UNFITTED, "--eval", "pairs", "--degrade", "gaussian:25", "--dry-run", "--json")
    assert told.exit_code == 0, told.stderr
    validation = json.loads(told.stdout)["validation"]
    assert validation["degraded"] == 200 and validation["original"] < 200, "input and target are the same"
    assert "nearly clean" in validation["doubt"]


@pytest.mark.slow
def test_held_out_images_are_what_counts(mofa: Callable[..., Result]) -> None:
    given = [*NETWORK, *TOLD, "--crops", "4", "--crop-size", "16", "--min-psnr-to-original", "1"]
    done = mofa(*given, "--out", "bundle")
    assert done.exit_code == 0, "so wide a bound is as good as --accept-loss"
    report = read_report(Path("bundle"))
    assert report.quality is not None and report.quality.inputs == COUNT and report.quality.acceptable
    assert report.decisions is not None and report.decisions.quality == report.quality


def test_what_has_no_skill_to_lose_is_saved(mofa: Callable[..., Result]) -> None:
    done = mofa(*UNFITTED[:3], "--eval", "val", "--out", "bundle")
    assert done.exit_code == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "part"),
    [(["--eval", "none"], "no folder none"), (["--eval", "c.pth"], "c.pth is a file, not a folder of images")],
)
def test_what_cannot_be_judged_on(mofa: Callable[..., Result], arguments: list[str], part: str) -> None:
    result = mofa(*UNFITTED, *arguments, "--dry-run")
    assert result.exit_code == 1 and part in result.stderr


@pytest.mark.parametrize(
    ("checkpoint", "figures", "refused"),
    [
        ("net.pth", {"value": 0.31}, True),
        ("net.pth", {"value": 0.29}, False),
        ("net.pth", {"value": 0.45, "limit": 0.5}, False),
        ("net.pth", {"value": 0.2, "limit": 0.15}, False),
        ("net.pth", {"measure": "agreement", "value": 0.985}, True),
        ("", {"value": 3.0}, False),
        (None, {"value": 3.0}, False),
    ],
)
def test_what_is_too_much(checkpoint: str | None, figures: dict[str, Any], refused: bool) -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 1))
    record = apply(model, [], torch.rand(1, 3, 8, 8), checkpoint=checkpoint).record
    quality = Quality(**{"measure": "loss", "limit": None, "inputs": 16, "source": "photos", **figures})
    lost = too_much(replace(record, quality=quality))
    assert (lost is not None) is refused
    assert lost is None or refusal(lost).code == "lossy"
