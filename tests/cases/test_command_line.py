"""Cases of the command line: checkpoints, targets, inputs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from typer.testing import CliRunner, Result

import mofa_compiler
from mofa_compiler.base.errors import CheckpointError
from mofa_compiler.cli import app
from mofa_compiler.loading.checkpoint import fit, load_checkpoint
from tests.raising import raising

from .files import CASES


@pytest.fixture
def mofa(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The command line in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


@pytest.mark.case("reliability/12_complex_and_integer_checkpoints.py")
@pytest.mark.parametrize("dtype", [torch.complex64, torch.int32, torch.bool], ids=str)
def test_a_checkpoint_of_other_numbers_is_refused(
    mofa: Callable[..., Result], case: ModuleType, dtype: torch.dtype
) -> None:
    state = case.Net().state_dict()
    torch.save({key: tensor.to(dtype) for key, tensor in state.items()}, "c.pth")
    target = f"{CASES}/reliability/01_onecycle_of_ten_steps.py:Net"
    result = mofa("rewrite", target, "--checkpoint", "c.pth", "--input", "1x3x32x32", "--out", "out")
    assert result.exit_code == 1
    assert f"    {next(iter(state))}: {str(dtype).removeprefix('torch.')} in the checkpoint, float32" in result.stderr
    assert not Path("out").exists()


WRAPPED = {
    "compiled_in_ddp": "plain",
    "ddp_of_compiled": "plain",
    "timm": "averaged",
    "basicsr_ema_only": "averaged",
    "basicsr_both": "averaged",
    "lightning": "plain",
    "swa": "averaged",
    "training_state": "plain",
    "saved_in_half": "plain",
}


@pytest.mark.case("peers/04_wrapped_again_and_again.py")
@pytest.mark.slow
def test_every_checkpoint_of_a_trainer_is_read(
    tmp_path: Path, case: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run([sys.executable, str(case.__file__), str(tmp_path)], check=True)
    saved = {file.stem: torch.load(file) for file in tmp_path.glob("*.pth")}
    plain, averaged = saved["basicsr_both"]["params"], saved["basicsr_both"]["params_ema"]
    assert {*WRAPPED, "accelerate_two_nets"} == saved.keys()
    for name, kind in WRAPPED.items():
        model = case.Net()
        weights = load_checkpoint(tmp_path / f"{name}.pth", model)
        fit(model, weights.state, weights.description)
        tolerance = 1e-3 if name == "saved_in_half" else 0.0
        expected = plain if kind == "plain" else averaged
        torch.testing.assert_close(model.state_dict(), expected, rtol=tolerance, atol=tolerance)
        assert ("ema" in weights.description or "averaged" in weights.description) == (kind == "averaged")


@pytest.mark.case("peers/04_wrapped_again_and_again.py")
@pytest.mark.slow
def test_two_networks_that_both_fit_are_named(tmp_path: Path, case: ModuleType) -> None:
    subprocess.run([sys.executable, str(case.__file__), str(tmp_path)], check=True)
    file = tmp_path / "accelerate_two_nets.pth"
    with raising(CheckpointError, "ambiguous", "net_g.", "net_d."):
        load_checkpoint(file, case.Net())
    assert load_checkpoint(file, case.Net(), strip_prefix="net_d.").state.keys() == case.Net().state_dict().keys()


@pytest.mark.case("peers/04_wrapped_again_and_again.py")
@pytest.mark.parametrize("name", ["compiled", "averaged"])
@pytest.mark.sample(1)
def test_the_naked_network_is_saved(mofa: Callable[..., Result], tmp_path: Path, case: ModuleType, name: str) -> None:
    keys = case.Net().state_dict().keys()
    wrapped = getattr(case, name)()
    mofa_compiler.apply(wrapped, "mofa", case.example()).save(tmp_path / "python")
    assert mofa_compiler.replay(tmp_path / "python", wrapped).keymap.keys() == keys
    target = f"{case.__file__}:{name}"
    saved = mofa("rewrite", target, "--input", "1x3x32x32", "--out", "command")
    assert saved.exit_code == 0, saved.output
    for bundle in ("python", "command"):
        assert json.loads((tmp_path / bundle / "keymap.json").read_text())["keys"].keys() == keys
    assert json.loads(mofa("capture", target, "--input", "1x3x32x32", "--json").stdout)["model"] == "Net"
    assert mofa("lint", target, "--input", "1x3x32x32", "--exit-zero").exit_code == 0


@pytest.mark.case("front-end/file_target/models/relative.py", "front-end/file_target/models/absolute.py")
@pytest.mark.parametrize("name", ["relative", "absolute"])
@pytest.mark.parametrize("where", ["", "models", ".."])
@pytest.mark.sample(1)
def test_a_file_is_found_in_its_repository(tmp_path: Path, name: str, where: str) -> None:
    root = tmp_path / "repository"
    shutil.copytree(CASES / "front-end/file_target", root)
    source = {"": f"models/{name}.py", "models": f"{name}.py", "..": f"repository/models/{name}.py"}[where]
    command = [sys.executable, "-m", "mofa_compiler.cli", "capture", f"{source}:Net", "--json"]
    done = subprocess.run(command, cwd=root / where, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["model"] == "Net"
