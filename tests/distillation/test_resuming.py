"""A run that is killed goes on, and comes to the same weights, bit for bit, as one that never was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from mofa_compiler import Result, recover
from mofa_compiler.base.errors import RecoveryError
from mofa_compiler.bundle import files, load
from mofa_compiler.distillation import run_state
from tests.distillation.small import images, network, rewritten, same, weights
from tests.raising import raising

OPTIONS: dict[str, Any] = {"steps": 9, "batch": 2, "lr": 3e-3, "validate_every": 3, "save_every": 1, "ema": 0.5}

KILLED = """
import os, signal, sys
import torch
from mofa_compiler import recover
from tests.distillation.small import network
from tests.distillation.test_resuming import OPTIONS, Deadly

torch.set_num_threads(1)
recover(sys.argv[1], network(), Deadly(sys.argv[2]), **OPTIONS)
print("survived")
"""


class StopError(Exception):
    pass


class Deadly(list[Tensor]):
    """Images, at the reading or saving of which the process is killed, as from outside."""

    def __init__(self, moment: str):
        super().__init__(images())
        self.reads, (what, number) = 0, moment.split()
        self.last = int(number) if what == "reading" else -1
        if what == "saving":
            saves, original = 0, os.replace

            def replace(*paths: Any) -> None:
                nonlocal saves
                saves += 1
                if saves == int(number):
                    os.kill(os.getpid(), signal.SIGKILL)
                original(*paths)

            os.replace = replace  # type: ignore[assignment]

    def __getitem__(self, index: Any) -> Any:
        self.reads += 1
        if self.reads == self.last:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


def folder(tmp_path: Path, name: str) -> Path:
    result = rewritten(network())
    result.save(tmp_path / name)
    return tmp_path / name


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    torch.set_num_threads(1)
    bundle = folder(tmp_path_factory.mktemp("undisturbed"), "out")
    assert recover(bundle, network(), images(), **OPTIONS).improved
    return load_file(bundle / files.WEIGHTS)


# Some 25 reads prepare the run, and each step reads 2; saves 1 to 9 are the state's.
@pytest.mark.parametrize("moment", ["reading 34", "saving 6"])
@pytest.mark.slow
def test_killed_at_any_moment(moment: str, tmp_path: Path, undisturbed: dict[str, Tensor]) -> None:
    bundle = folder(tmp_path, "out")
    root = Path(__file__).parents[2]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(bundle), moment],
        cwd=root,
        env={**os.environ, "PYTHONPATH": f"{root}:{root / 'examples'}"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    saved = torch.load(tmp_path / "out.recovery" / run_state.FILE, weights_only=True)
    assert 3 <= saved["course"]["step"] <= 6
    recovery = recover(bundle, network(), images(), **OPTIONS)
    assert same(load_file(bundle / files.WEIGHTS), undisturbed)
    assert recovery.steps == 9 and [point.step for point in recovery.history] == [0, 3, 6, 9]
    assert not (tmp_path / "out.recovery").exists()


@pytest.mark.parametrize("saved", [0, 1, 2])
@pytest.mark.slow
def test_stopped_while_the_bundle_is_written(
    saved: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: dict[str, Tensor]
) -> None:
    bundle, replaced, replace = folder(tmp_path, "out"), 0, os.replace

    def stops(source: Any, target: Any) -> None:
        nonlocal replaced
        if Path(target).parent == bundle:
            replaced += 1
            if replaced > saved:
                raise StopError
        replace(source, target)

    monkeypatch.setattr(os, "replace", stops)
    with pytest.raises(StopError):
        recover(bundle, network(), images(), **OPTIONS)
    monkeypatch.setattr(os, "replace", replace)
    assert same(load_file(bundle / files.WEIGHTS), undisturbed) == (saved > 0)
    load(bundle)
    assert recover(bundle, network(), images(), **OPTIONS).steps == 9
    assert same(load_file(bundle / files.WEIGHTS), undisturbed)
    assert len(json.loads((bundle / files.REPORT).read_text())["recoveries"]) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def interrupted(result: Result, where: Path, at: int = 3, **options: Any) -> None:
    """A run that stops behind step `at`, its state saved."""

    class Stopping(list[Tensor]):
        reads = 0

        def __getitem__(self, index: Any) -> Any:
            self.reads += 1
            if self.reads > 25 + 2 * at:
                raise StopError
            return super().__getitem__(index)

    with pytest.raises(StopError):
        recover(result, network(), Stopping(images()), state_folder=where, **{**OPTIONS, **options})


@pytest.mark.slow
def test_going_on_is_telling_what_differs(tmp_path: Path) -> None:
    result, where = rewritten(network()), tmp_path / "state"
    begun = weights(result.model)
    interrupted(result, where)
    assert same(weights(result.model), begun)
    other = network()
    with torch.no_grad():
        other.outc.bias.add_(1)  # type: ignore[operator, union-attr]
    for data, original, changed, message in (
        (images(), network(), {"seed": 1}, r"other data: give|other seed \(0, now 1\)"),
        (images(), network(), {"lr": 1e-3}, r"other lr \(0.003, now 0.001\)"),
        (images(), network(), {"steps": 10}, r"other steps \(9, now 10\)"),
        (images(11), network(), {}, r"other data: examples \(9, now 10\)"),
        ([image + 1 for image in images()], network(), {}, "other data: give"),
        (images(), other, {}, "this UNet has other weights"),
    ):
        with pytest.raises(RecoveryError, match=message):
            recover(result, original, data, state_folder=where, **{**OPTIONS, **changed})
    with torch.no_grad():
        result.model.get_parameter("outc.bias").add_(1)
    with raising(RecoveryError, "other-run", "--restart"):
        recover(result, network(), images(), state_folder=where, **OPTIONS)
    recovery = recover(result, network(), images(), state_folder=where, restart=True, **OPTIONS)
    assert recovery.history[0].step == 0 and not where.exists()


@pytest.mark.slow
def test_what_decides_nothing_may_differ(tmp_path: Path) -> None:
    result, where = rewritten(network()), tmp_path / "state"
    interrupted(result, where)
    recovery = recover(result, network(), images(), state_folder=where, **{**OPTIONS, "save_every": 4})
    assert recovery.steps == 9


def test_a_damaged_state_is_an_error(tmp_path: Path) -> None:
    result, where = rewritten(network()), tmp_path / "state"
    interrupted(result, where)
    (where / run_state.FILE).write_bytes(b"half")
    with raising(RecoveryError, "unreadable"):
        recover(result, network(), images(), state_folder=where, **OPTIONS)
    torch.save({"schema": "mofa-recovery-state/0"}, where / run_state.FILE)
    with raising(RecoveryError, "other-version"):
        recover(result, network(), images(), state_folder=where, **OPTIONS)


def test_a_state_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_state.write(tmp_path, {"step": 1})

    def fails(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_state.os, "fsync", fails)
    with raising(RecoveryError, "unwritable", "state.pt"):
        run_state.write(tmp_path, {"step": 2})
    saved = run_state.read(tmp_path)
    assert saved is not None and saved["step"] == 1
    run_state.remove(tmp_path)
    assert run_state.read(tmp_path) is None and not tmp_path.exists()
