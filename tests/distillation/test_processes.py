"""Two processes come to the weights of one with the same batches."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

from mofa_compiler import recover
from mofa_compiler.base.errors import RecoveryError
from mofa_compiler.bundle import files, load
from tests.distillation.small import network, pairs, rewritten
from tests.raising import raising

OPTIONS: dict[str, Any] = {"steps": 4, "batch": 4, "lr": 3e-3, "validate_every": 2, "save_every": 2}

SHARED = """
import sys
import torch
from tests.distillation.test_processes import run

torch.set_num_threads(1)
run(sys.argv[1])
torch.distributed.destroy_process_group()
"""


def run(bundle: str) -> None:
    """Recover, and write the gradients of the first step and what came out to `<bundle>.<rank>.pt`."""
    gradients: list[list[Tensor]] = []

    def record(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        gradients.append([p.grad.clone() for group in optimizer.param_groups for p in group["params"]])

    hook = register_optimizer_step_pre_hook(record)
    try:
        recovery = recover(bundle, network(), pairs(), **OPTIONS)
    finally:
        hook.remove()
    history = [(point.step, point.loss, point.psnr) for point in recovery.history]
    torch.save({"gradients": gradients[0], "history": history}, f"{bundle}.{os.environ.get('RANK', 'alone')}.pt")


@pytest.mark.slow
def test_two_processes_do_what_one_does(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    result = rewritten(network())
    one, two = (result.save(tmp_path / name) for name in ("one", "two"))
    script = tmp_path / "script.py"
    script.write_text(SHARED)
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script, two],
        cwd=root,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{root}:{root / 'examples'}"},
        check=True,
        capture_output=True,
        timeout=240,
    )
    run(str(one))
    alone, first, second = (torch.load(f"{one.parent}/{n}.pt") for n in ("one.alone", "two.0", "two.1"))
    for expected, *others in zip(alone["gradients"], first["gradients"], second["gradients"], strict=True):
        assert torch.equal(*others)
        torch.testing.assert_close(others[0], expected, rtol=1e-4, atol=1e-6)
    assert first["history"][1:] == second["history"][1:]
    for got, expected in zip(first["history"][1:], alone["history"][1:], strict=True):
        assert got == pytest.approx(expected, rel=1e-4)
    before, after, ours = (dict(m.state_dict()) for m in (result.model, load(two), load(one)))
    assert any(not torch.equal(before[key], after[key]) for key in before)
    for key, value in ours.items():
        torch.testing.assert_close(after[key], value, rtol=1e-3, atol=1e-5)
    assert not (tmp_path / "two.recovery").exists() and files.WEIGHTS in os.listdir(two)


def test_a_batch_that_cannot_be_shared_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accelerate.Accelerator.num_processes", 3)
    with raising(RecoveryError, "bad-value"):
        recover(rewritten(network()), network(), pairs(), **OPTIONS)
