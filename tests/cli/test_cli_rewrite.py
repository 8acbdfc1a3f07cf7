"""`mofa rewrite`: what it prints where, what it writes, and one clear line for everything that is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from architectures import UNet
from mofa_compiler.cli import app
from mofa_compiler.report import data, pictures
from mofa_compiler.runtime import usual_engine
from tests.autotune.small import depthwise_taps, invent

UNET = str(Path(__file__).parents[2] / "examples" / "architectures" / "unet.py") + ":UNet"
SMALL = [UNET, "--arg", "width=4", "--arg", "depth=2", "--input", "1x3x16x16"]

NOISY = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, channels=4):
        super().__init__()
        print("constructed")
        self.layers = nn.Sequential(*(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(3)))

    def forward(self, x):
        print("running")
        return self.layers(x)


def empty():
    return nn.Sequential(nn.Conv2d(3, 3, 1))


def interrupted():
    raise KeyboardInterrupt
"""


@pytest.fixture
def mofa(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The command line in an empty folder, 80 columns wide."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "noisy.py").write_text(NOISY)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["rewrite", *arguments])

    return run


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Calls of `save`, which writes nothing but the folder."""
    calls: list[dict[str, Any]] = []

    def save(result: Any, directory: Path, *, overwrite: bool, progress: Any, reported: Any) -> Path:
        calls.append({"directory": directory, "overwrite": overwrite, "edits": [len(d.edits) for d in result.diffs]})
        progress("weights", 0, 1)
        directory.mkdir(exist_ok=True)
        return directory

    monkeypatch.setattr("mofa_compiler.bundle.files.save", save)
    return calls


def test_dry_run_prints_the_report_and_writes_nothing(mofa: Callable[..., Result]) -> None:
    result = mofa(*SMALL, "--dry-run")
    assert result.exit_code == 0
    assert result.stdout.startswith("UNet, roadmap mofa, input 1x3x16x16\n")
    assert "decouple-upsampling" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert result.stderr.startswith("warning: no --checkpoint: ")
    assert os.listdir() == ["noisy.py"]


def test_saving(mofa: Callable[..., Result], saved: list[dict[str, Any]]) -> None:
    result = mofa(*SMALL, "--out", "bundle")
    assert result.exit_code == 0
    assert result.stderr.endswith("saved to bundle\n")
    assert [call["directory"] for call in saved] == [Path("bundle")]
    assert not saved[0]["overwrite"]


@pytest.mark.parametrize(
    ("options", "times"),
    [(["--out", "net"], 1), (["--out", "net", "--quiet"], 1), (["--dry-run"], 1), (["--dry-run", "--quiet"], 0)],
)
@pytest.mark.sample(2)
def test_report_and_pictures_are_made_once(
    mofa: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, options: list[str], times: int
) -> None:
    made: list[str] = []
    for module, name in ((data, "report"), (pictures, "pictures")):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *given, real=real, name=name: made.append(name) or real(*given))
    assert mofa(*SMALL, *options).exit_code == 0
    assert sorted(made) == sorted(["report", "pictures"] * times)


def test_overwriting_is_passed_on(mofa: Callable[..., Result], saved: list[dict[str, Any]]) -> None:
    assert mofa(*SMALL, "--out", "bundle", "--overwrite").exit_code == 0
    assert saved[0]["overwrite"]


def test_json_is_all_of_stdout(mofa: Callable[..., Result]) -> None:
    result = mofa("noisy.py:Net", "--input", "1x4x16x16", "--dry-run", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["schema"] == "mofa-report/2"
    assert "constructed" in result.stderr
    assert "running" in result.stderr


def test_verbose_shows_every_path(mofa: Callable[..., Result]) -> None:
    report = json.loads(mofa(*SMALL, "--dry-run", "--json").stdout)
    lines = {line.strip() for line in mofa(*SMALL, "--dry-run", "--verbose").stdout.splitlines()}
    assert {entry["path"] for step in report["passes"] for entry in step["edits"] + step["skips"]} <= lines


def test_quiet_is_silent(mofa: Callable[..., Result], saved: list[dict[str, Any]]) -> None:
    result = mofa(*SMALL, "--out", "bundle", "--quiet")
    assert (result.exit_code, result.output) == (0, "")
    assert len(saved) == 1


def test_nothing_to_rewrite_still_saves(mofa: Callable[..., Result], saved: list[dict[str, Any]]) -> None:
    result = mofa("noisy.py:empty", "--input", "1x3x8x8", "--out", "bundle")
    assert result.exit_code == 0
    assert "Nothing to rewrite: the network is unchanged." in result.stdout
    assert set(saved[0]["edits"]) == {0}


@pytest.mark.slow
def test_a_checkpoint_is_loaded_and_described(mofa: Callable[..., Result]) -> None:
    state = UNet(width=4, depth=2).state_dict()
    torch.save({"params_ema": state, "params": state}, "c.pth")
    told = ["--as-told", "--calibrate", "none", "--engine", "eager", "--dry-run"]
    result = mofa(*SMALL, "--checkpoint", "c.pth", *told)
    assert result.exit_code == 0
    assert result.stderr == "weights: params_ema of c.pth (there is also params: --key)\n"
    result = mofa(*SMALL, "--checkpoint", "c.pth", "--key", "params", *told)
    assert result.stderr == "weights: params of c.pth\n"
    said = [
        json.loads(mofa(*SMALL, *more, "--dry-run", "--json").stdout) for more in (["--checkpoint", "c.pth", *told], [])
    ]
    assert [report["checkpoint"] for report in said] == ["params_ema of c.pth (there is also params: --key)", ""]


@pytest.mark.slow
def test_trained_weights_are_fitted_judged_and_bounded(
    mofa: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    invent(monkeypatch, depthwise_taps)
    torch.save(UNet(width=4, depth=2).state_dict(), "c.pth")
    common = [*SMALL, "--checkpoint", "c.pth", "--crops", "4", "--dry-run", "--json"]
    done = mofa(*common)
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["decisions"]["conditions"]["engine"] == usual_engine()
    quality = report["decisions"]["quality"]
    assert quality is None or quality["value"] >= quality["limit"] == 45
    told = json.loads(mofa(*common, "--as-told", "--engine", "eager").stdout)
    assert told["decisions"]["chosen"] == "as told" and told["decisions"]["layers"] == []
    assert told["decisions"]["quality"]["measure"] == "psnr"
    assert "worth shipping" in told["decisions"]["sentence"]
    assert told["passes"][0]["name"] == "sepconv-to-pconv"


def test_a_roadmap_of_ones_own(mofa: Callable[..., Result]) -> None:
    Path("my.toml").write_text('[[pass]]\nname = "decouple-upsampling"\nmode = "nearest"\n')
    report = json.loads(mofa(*SMALL, "--roadmap", "my.toml", "--dry-run", "--json").stdout)
    assert [step["name"] for step in report["passes"]] == ["decouple-upsampling"]
    assert report["passes"][0]["options"]["mode"] == "nearest"


@pytest.mark.slow
def test_the_bundle_is_there_and_is_not_overwritten_unasked(mofa: Callable[..., Result]) -> None:
    arguments = [*SMALL, "--out", "deep/bundle"]
    first = mofa(*arguments)
    assert first.exit_code == 0, first.stderr
    report = json.loads(Path("deep/bundle/report.json").read_text(encoding="utf-8"))
    assert report["schema"] == "mofa-report/2"
    second = mofa(*arguments)
    assert second.exit_code == 1
    assert "holds a bundle already" in second.stderr
    assert mofa(*arguments, "--overwrite").exit_code == 0


def occupied() -> None:
    Path("bundle").mkdir()
    Path("bundle", "notes.txt").touch()


def misfit() -> None:
    torch.save({"a.weight": torch.ones(2)}, "c.pth")


INPUT_ERRORS: dict[str, tuple[Callable[[], Any], list[str], str]] = {
    "no module": (lambda: None, ["nowhere:Net", "--dry-run"], "error: there is no module 'nowhere'"),
    "no class": (lambda: None, ["noisy.py:Nett", "--dry-run"], "error: noisy.py has no 'Nett' (did you mean 'Net'?)"),
    "unknown argument": (lambda: None, ["noisy.py:Net", "--arg", "x=1", "--dry-run"], "takes no argument 'x'"),
    "roadmap": (lambda: None, [*SMALL, "--roadmap", "moaf", "--dry-run"], "error: there is no roadmap 'moaf' (did you"),
    "roadmap file": (lambda: None, [*SMALL, "--roadmap", "no.toml", "--dry-run"], "there is no roadmap file no.toml"),
    "malformed roadmap": (
        lambda: Path("my.toml").write_text("[["),
        [*SMALL, "--roadmap", "my.toml", "--dry-run"],
        "error: my.toml: malformed TOML",
    ),
    "no checkpoint": (lambda: None, [*SMALL, "--checkpoint", "no.pth", "--dry-run"], "error: there is no file no.pth"),
    "misfit": (misfit, [*SMALL, "--checkpoint", "c.pth", "--dry-run"], "error: c.pth does not fit UNet: 0 of its"),
    "channels": (
        lambda: None,
        ["noisy.py:Net", "--input", "1x3x16x16", "--dry-run"],
        "error: Net does not take an input of shape 1x3x16x16",
    ),
    "two inputs": (
        lambda: None,
        ["noisy.py:Net", "--input", "1x4x16x16", "--input", "1x1", "--dry-run"],
        "2 example inputs were given",
    ),
    "occupied folder": (occupied, [*SMALL, "--out", "bundle"], "bundle exists and is no bundle"),
    "out is a file": (lambda: Path("bundle").touch(), [*SMALL, "--out", "bundle"], "bundle is a file, not a folder"),
    "out below a file": (
        lambda: Path("bundle").touch(),
        [*SMALL, "--out", "bundle/x", "--overwrite"],
        "error: cannot make bundle/x: ",
    ),
}


@pytest.mark.parametrize(("prepare", "arguments", "message"), INPUT_ERRORS.values(), ids=INPUT_ERRORS.keys())
def test_an_error_in_the_input_is_one_clear_message(
    mofa: Callable[..., Result],
    saved: list[dict[str, Any]],
    prepare: Callable[[], Any],
    arguments: list[str],
    message: str,
) -> None:
    prepare()
    result = mofa(*arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    errors = result.stderr[result.stderr.index("error: ") :]
    assert message in errors
    assert "Traceback" not in errors
    assert not saved


USAGE_ERRORS: dict[str, tuple[list[str], str]] = {
    "no out": ([UNET], "--out"),
    "threads": ([*SMALL, "--dry-run", "--threads", "2"], "needs --engine"),
    "loss without engine": ([*SMALL, "--dry-run", "--max-loss", "1"], "needs --engine"),
    "loss without images": ([*SMALL, "--dry-run", "--engine", "eager", "--max-loss", "1"], "and --calibrate"),
    "loss without clean images": (
        [*SMALL, "--dry-run", "--engine=eager", "--calibrate=x", "--max-loss=1"],
        "needs --degrade",
    ),
    "loss": (
        [*SMALL, "--dry-run", "--engine=eager", "--calibrate=x", "--degrade=gaussian:1", "--max-loss=1W"],
        "is not a loss such as 0.15dB",
    ),
    "agreement": (
        [*SMALL, "--dry-run", "--engine=eager", "--calibrate=x", "--min-agreement=101%"],
        "is not a share such as 99.5%",
    ),
    "two bounds": (
        [*SMALL, "--dry-run", "--engine=eager", "--calibrate=x", "--min-agreement=99%", "--min-psnr-to-original=40"],
        "is a second bound beside --min-psnr-to-original",
    ),
    "trained and unfitted": ([*SMALL, "--dry-run", "--checkpoint=c.pth", "--calibrate=none"], "unless --as-told"),
    "quiet json": ([*SMALL, "--dry-run", "--quiet", "--json"], "contradicts --quiet"),
    "quiet verbose": ([*SMALL, "--dry-run", "--quiet", "--verbose"], "contradicts --quiet"),
    "key alone": ([*SMALL, "--dry-run", "--key", "a"], "needs --checkpoint"),
    "prefix alone": ([*SMALL, "--dry-run", "--strip-prefix", "a"], "needs --checkpoint"),
    "shape": ([UNET, "--dry-run", "--input", "1x3xfoo"], "'1x3xfoo' is not a shape such as 1x3x256x256"),
    "zero shape": ([UNET, "--dry-run", "--input", "1x0x8x8"], "'1x0x8x8' is not a shape"),
    "empty shape": ([UNET, "--dry-run", "--input", ""], "is not a shape"),
    "argument": ([UNET, "--dry-run", "--arg", "c"], "'c' is not of the form name=value"),
    "unknown option": ([UNET, "--dry"], "No such option"),
}


@pytest.mark.parametrize(("arguments", "message"), USAGE_ERRORS.values(), ids=USAGE_ERRORS.keys())
def test_wrong_usage(mofa: Callable[..., Result], arguments: list[str], message: str) -> None:
    result = mofa(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert message in result.stderr


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(28, "No space left on device", "bundle/weights"), "error: bundle/weights: No space left on device\n"),
        (PermissionError(13, "Permission denied"), "error: Permission denied\n"),
        (OSError("something else"), "error: something else\n"),
    ],
)
@pytest.mark.sample(1)
def test_a_disk_that_refuses(
    mofa: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, error: OSError, message: str
) -> None:
    def save(*_: Any, **__: Any) -> Path:
        raise error

    monkeypatch.setattr("mofa_compiler.bundle.files.save", save)
    result = mofa(*SMALL, "--out", "bundle")
    assert result.exit_code == 1
    assert result.stderr.endswith(message)


def test_debug_shows_where_an_error_comes_from(mofa: Callable[..., Result]) -> None:
    result = mofa("nowhere:Net", "--dry-run", "--debug")
    assert type(result.exception).__name__ == "TargetError"
    assert getattr(result.exception, "__notes__", None) == ["code: not-found"]


def test_interruption_is_quiet(mofa: Callable[..., Result]) -> None:
    result = mofa("noisy.py:interrupted", "--dry-run")
    assert (result.exit_code, result.output) == (130, "")


def mofa_process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "mofa_compiler.cli", *arguments],
        capture_output=True,
        env={**os.environ, "COLUMNS": "80", **environment},
        check=False,
    )


@pytest.mark.slow
def test_a_process_on_a_terminal_without_arrows() -> None:
    done = mofa_process("rewrite", *SMALL, "--dry-run", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert b"UNet, roadmap mofa" in done.stdout
    assert b"\x1b" not in done.stdout + done.stderr


def test_a_process_that_fails_prints_no_traceback() -> None:
    done = mofa_process("rewrite", "nowhere:Net", "--dry-run")
    assert done.returncode == 1
    assert done.stdout == b""
    assert done.stderr.splitlines()[-1].startswith(b"error: there is no module 'nowhere'")
    assert b"Traceback" not in done.stderr


@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
@pytest.mark.slow
def test_a_reader_that_leaves_early_is_no_error() -> None:
    command = f"{sys.executable} -m mofa_compiler.cli rewrite {' '.join(SMALL)} --dry-run --json | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, check=False)
    assert done.stdout == b"{\n"
    assert b"Traceback" not in done.stderr
    assert b"error" not in done.stderr.replace(b"output errors", b"")
