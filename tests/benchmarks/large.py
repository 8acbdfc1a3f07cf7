"""What calibrating a network of 31 M parameters takes: CPU seconds by phase, and memory, over numbers of images.

    python -m tests.benchmarks.large [--images 4 8 16] [--size 256] [--channels 64] [--tuning 200] [--limit 600]

A plain U-Net of 64 to 1024 channels with random weights, preset `mofa`, noisy synthetic images, one thread. Every
number of images is run in a process of its own, whose highest resident memory is told beside what it was after the
network alone had run. Exits with 1 where one takes more than `--limit` CPU seconds or 8 GiB; without it, never.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from architectures import UNet
from mofa_compiler import apply
from mofa_compiler.base.words import quantity
from mofa_compiler.calibration import Calibration
from mofa_compiler.data import calibration_batches

MOST = 8.0
"""GiB"""


@dataclass
class Phases:
    """CPU seconds by the first word of what `progress` says; a `progress`."""

    seconds: Counter[str] = field(default_factory=Counter)
    phase: str = "rewriting"
    since: float = field(default_factory=time.process_time)

    def __call__(self, step: str, done: int, total: int) -> None:
        now = time.process_time()
        self.seconds[self.phase] += now - self.since
        self.phase, self.since = step.split()[0], now


def memory() -> float:
    """The highest resident memory of this process so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measured(images: int, size: int, channels: int, tuning: int) -> dict[str, Any]:
    """CPU seconds by phase and GiB of one calibration, in this process."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = UNet(width=channels).eval()
    x = torch.rand(1, 3, size, size)
    with torch.no_grad():
        model(x)
    before, clock = memory(), Phases()
    noisy = list(calibration_batches("synthetic", channels=3, degradation="gaussian:25", crops=images, size=size))
    result = apply(model, "mofa", x, Calibration(noisy, tuning=tuning), progress=clock)
    clock("end", 0, 0)
    return {
        "seconds": dict(clock.seconds),
        "gib": memory(),
        "before": before,
        "parameters": sum(p.numel() for p in model.parameters()),
        "error": result.diffs[-1].options["output_error"],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--tuning", type=int, default=200)
    parser.add_argument("--limit", type=float)
    options = parser.parse_args()
    table = Table("images", "CPU s", "GiB", "before", "CPU s by phase", "output's error")
    beyond, context = False, multiprocessing.get_context("spawn")
    for images in options.images:
        with context.Pool(1) as pool:  # the highest memory is that of a process
            one = pool.apply(measured, (images, options.size, options.channels, options.tuning))
        total = sum(one["seconds"].values())
        beyond |= options.limit is not None and (total > options.limit or one["gib"] > MOST)
        phases = ", ".join(f"{name} {spent:.0f}" for name, spent in Counter(one["seconds"]).most_common() if spent > 1)
        table.add_row(f"{images}", f"{total:.0f}", f"{one['gib']:.2f}", f"{one['before']:.2f}", phases, one["error"])
    Console().print(f"{quantity(one['parameters'])} parameters, 1x3x{options.size}x{options.size}")
    Console().print(table)
    return int(beyond)


if __name__ == "__main__":
    raise SystemExit(main())
