"""What deciding a network for an engine costs: CPU seconds by phase, from an empty cache, and what came of it.

    python -m tests.benchmarks.deciding [--engines onnxruntime,xnnpack,eager] [--models PMRID,NAFNet]
        [--input 1x3x256x256] [--blocks 7 144] [--max-loss 0.15] [--limit 90]

The networks are those of `deployment.py`, preset `mofa`, one thread. Phases are those that `progress` tells of; what
children of the process take is not counted, there are none. `foretold` is what was said of the time in all after a
tenth, a quarter, a half and three quarters of it, divided by what it came to. With `--max-loss`, the two trained
networks are decided within that bound, calibrated on photographs. With `--blocks`, NAFNet (width 16, 1x3x64x64) of so
many blocks instead: layers that are alike are decided once, so that 144 blocks should take at most twice as long as 7.
Exits with 1 where a decision takes more than `--limit` CPU seconds; without it, never.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from images import TRAINING, write_photographs
from keep_a_checkpoint import network as trained
from mofa_compiler import Roadmap, apply
from mofa_compiler.base.progress import Step
from mofa_compiler.calibration import Calibration
from mofa_compiler.cli.options import parse_shape
from mofa_compiler.data import CalibrationImages
from mofa_compiler.result.decisions import Decisions
from mofa_compiler.runtime.cache import VARIABLE
from tests.benchmarks.calibration import CHECKPOINT
from tests.benchmarks.decided_quality import SUBJECTS as TRAINED
from tests.benchmarks.overhead import network as of_blocks
from tests.benchmarks.variants import SUBJECTS

MOMENTS = (0.1, 0.25, 0.5, 0.75)
"""Of the time that it takes"""

PHASES = {
    "compiling pieces": "compiling pieces",
    "measuring the whole network": "whole networks",
    "measuring": "racing pieces",
    "alternatives of": "making alternatives",
    "forms of": "making forms",
    "pricing": "pricing",
    "calibrating,": "fitting",
    "tuning,": "tuning",
    "looking at": "looking",
    "capturing": "capturing",
}
"""What `progress` says, as it begins: the phase; whatever else it says is the rewrite itself"""


@dataclass
class Clock:
    """CPU seconds of this process by phase; a `progress`."""

    phases: Mapping[str, str] = field(default_factory=lambda: PHASES)
    seconds: Counter[str] = field(default_factory=Counter)
    phase: str = "capturing"
    since: float = field(default_factory=time.process_time)
    start: float = field(default_factory=time.perf_counter)
    said: list[tuple[float, float]] = field(default_factory=list)
    """Seconds gone, and what was said that it takes in all"""

    def __call__(self, step: str, done: int, total: int) -> None:
        now, gone = time.process_time(), time.perf_counter() - self.start
        if isinstance(step, Step):
            self.said.append((gone, gone + step.left))
        self.seconds[self.phase] += now - self.since
        self.since = now
        self.phase = next((phase for words, phase in self.phases.items() if step.startswith(words)), "rewriting")

    @property
    def foretold(self) -> list[float]:
        """What was said of the whole time at each of `MOMENTS`, as part of what it came to."""
        whole = self.said[-1][0]
        return [next(total for gone, total in self.said if gone >= moment * whole) / whole for moment in MOMENTS]


def decided(
    network: nn.Module,
    engine: str,
    x: Tensor,
    size: str | None = None,
    calibration: Calibration | None = None,
    **bound: Any,
) -> tuple[Clock, Decisions]:
    """The decision, from an empty cache, and what it took."""
    roadmap = Roadmap.load("mofa").with_target(engine, threads=1, **({"input": size} if size else {}))
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, {VARIABLE: folder}):
        clock = Clock()
        decisions = apply(network, roadmap, x, calibration, **bound, progress=clock).decisions
        clock("", 0, 0)
    assert decisions is not None
    return clock, decisions


def _within(name: str, engine: str, loss: float) -> tuple[Clock, Decisions]:
    """The trained network of this name, within a bound in dB, fitted to photographs without tuning."""
    model, channels, degradation = trained(TRAINED[name].name, CHECKPOINT)
    with tempfile.TemporaryDirectory() as folder:
        write_photographs(TRAINING, Path(folder))
        images = CalibrationImages(folder, channels=channels, size=128, degradation=degradation)
        x = torch.rand(1, channels, 128, 128)
        return decided(model, engine, x, f"1x{channels}x256x256", Calibration(images, tuning=0), max_loss=loss)


def _row(name: str, engine: str, clock: Clock, decisions: Decisions) -> list[str]:
    tried = [one for layer in decisions.layers for one in layer.alternatives]
    final = decisions.final
    ratio = "1" if final is None else f"{final.ratio:.3f} ({final.interval[0]:.3f} to {final.interval[1]:.3f})"
    phases = [f"{clock.seconds[phase]:.1f}" for phase in dict.fromkeys([*PHASES.values(), "rewriting"])]
    counts = [str(len(decisions.layers)), f"{sum(one.ms is not None for one in tried)} of {len(tried)}"]
    foretold = " ".join(f"{one:.2f}" for one in clock.foretold)
    return [name, engine, f"{clock.seconds.total():.1f}", *phases, *counts, ratio, foretold]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", type=lambda text: text.split(","), default=["onnxruntime", "xnnpack", "eager"])
    parser.add_argument("--models", type=lambda text: text.split(","), default=["PMRID", "NAFNet"])
    parser.add_argument("--input", type=parse_shape, default=(1, 3, 256, 256), metavar="SHAPE")
    parser.add_argument("--blocks", type=int, nargs="+", default=[], help="NAFNet of so many blocks instead")
    parser.add_argument("--limit", type=float, help="CPU seconds that a decision may take")
    parser.add_argument("--max-loss", type=float, help="dB: the trained networks, within this bound")
    options = parser.parse_args()
    torch.set_num_threads(1)
    shape = (1, 3, 64, 64) if options.blocks else options.input
    networks = {f"NAFNet, {number} blocks": of_blocks(number).eval() for number in options.blocks}
    if not options.blocks:
        networks = {name: SUBJECTS[name][name].make() for name in options.models}
    header = ["network", "engine", "CPU s", *dict.fromkeys([*PHASES.values(), "rewriting"])]
    table = Table(*header, "groups", "measured", "of the original's time", "foretold", caption="phases in CPU s")
    slowest = 0.0
    for name, network in networks.items():
        for engine in options.engines:
            print(f"{name}, {engine}", file=sys.stderr, flush=True)
            if options.max_loss is None:
                clock, decisions = decided(network, engine, torch.rand(shape))
            else:
                clock, decisions = _within(name, engine, options.max_loss)
            slowest = max(slowest, clock.seconds.total())
            table.add_row(*_row(name, engine, clock, decisions))
    Console(width=200 if not sys.stdout.isatty() else None).print(table)
    return int(options.limit is not None and slowest > options.limit)


if __name__ == "__main__":
    sys.exit(main())
