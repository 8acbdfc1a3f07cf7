"""How much memory a network needs on an engine."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from ..base.errors import EngineError
from ..base.precision import Precision
from .engine import Engine
from .engines import engines

_STATUS = Path("/proc/self/status")
_REFERENCES = Path("/proc/self/clear_refs")
_RUNS = 3
_SMALL = torch.zeros(1, 4, 8, 8)


def peak_memory(packed: bytes, inputs: Sequence[Tensor], engine: Engine, threads: int = 1) -> float | None:
    """MiB that the engine takes to run a network, at its peak; None where the operating system does not tell (Linux
    does).

    Measured in a process of its own: the growth of its resident memory from before the network is loaded to the peak of
    the runs after the first. So weights, however the engine keeps them, its buffers, code that it generates, and all
    intermediate values count. The engine's libraries do not, since another network, of one small convolution, has run
    before, nor does what only loading and compiling take for a while. On a GPU, it is what PyTorch allocated there.

    Args:
        packed: the network, as `engine.pack` made it. PyTorch's engines run it as torch.export sees it.
        inputs: what it is run on.
        engine: where.
        threads: how many it may use.

    Raises:
        EngineError: the process failed.
    """
    if engine.device == "cpu" and not os.access(_REFERENCES, os.W_OK):
        return None
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "first").write_bytes(_first(engine))
        Path(folder, "packed").write_bytes(packed)
        torch.save([x.detach().cpu() for x in inputs], Path(folder, "inputs.pt"))
        command = [sys.executable, "-m", __name__, folder, engine.name, engine.precision, str(threads)]
        path = os.pathsep.join(filter(None, sys.path))
        done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
        result = Path(folder, "result.json")
        if done.returncode or not result.is_file():
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise EngineError(
                f"measuring memory on {engine.name} failed (exit code {done.returncode}): {last[:300]}", code="failed"
            )
        return float(json.loads(result.read_text()))


@cache
def _first(engine: Engine) -> bytes:
    """The network that has to run first."""
    return engine.pack(nn.Conv2d(4, 4, 3), [_SMALL])


def _main(folder: Path, name: str, precision: Precision, threads: int) -> None:
    """What the process does."""
    engine = engines()[name].at(precision)
    first = engine.load((folder / "first").read_bytes(), [_SMALL], threads)
    with engine.running(threads):
        first.run()
    inputs = torch.load(folder / "inputs.pt")
    packed = (folder / "packed").read_bytes()
    gc.collect()
    before = _resident("VmRSS") if engine.device == "cpu" else 0.0
    compiled = engine.load(packed, inputs, threads)
    with engine.running(threads):
        compiled.run()
        gc.collect()
        if engine.device == "cpu":
            _REFERENCES.write_text("5")  # forget the peak so far
        else:
            torch.cuda.reset_peak_memory_stats()
        for _ in range(_RUNS):
            compiled.run()
    after = _resident("VmHWM") if engine.device == "cpu" else torch.cuda.max_memory_allocated() / 2**20
    (folder / "result.json").write_text(json.dumps(after - before))


def _resident(entry: str) -> float:
    """MiB of this process, now (VmRSS) or at its peak (VmHWM)."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{entry}:"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))  # type: ignore[arg-type]
