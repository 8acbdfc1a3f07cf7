"""What `mofa lint` costs from a cold start, against importing torch and building the model.

    python tests/benchmarks/startup.py [--rounds 15] [--limit 2.2]

Fresh processes in turns, PMRID, NAFNet and the two in one process: medians of elapsed and of processor time, and their
ratios. The first round warms the file cache and does not count. Tracing imports torch._dynamo, which takes as long as
torch itself. Exits with 1 where the ratio of the medians of elapsed time is above the limit for one network.
"""

from __future__ import annotations

import argparse
import os
import resource
import shlex
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[2]

NETWORKS = {"PMRID": "examples/architectures/pmrid.py:PMRID", "NAFNet": "examples/architectures/nafnet.py:NAFNet"}
GROUPS = (("PMRID",), ("NAFNet",), ("PMRID", "NAFNet"))


class Spent(NamedTuple):
    """Seconds that one process took."""

    elapsed: float
    processor: float


def baseline(names: tuple[str, ...]) -> list[str]:
    """The process that imports torch and builds the networks."""
    lines = [f"from architectures.{name.lower()} import {name}; {name}()" for name in names]
    return [sys.executable, "-c", "\n".join(["import torch", *lines])]


def linting(names: tuple[str, ...]) -> list[str]:
    """The process that lints them, by all rules that are on."""
    return [sys.executable, "-m", "mofa_compiler.cli", "lint", *(NETWORKS[name] for name in names)]


def run(command: list[str]) -> Spent:
    """Run one process to its end.

    Raises:
        SystemExit: it failed; 1, what a linter says of findings, is no failure.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "examples"), str(ROOT)])}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    process = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    elapsed, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode not in (0, 1) or "Traceback" in process.stderr:
        raise SystemExit(f"{shlex.join(command)} failed:\n{process.stderr}")
    return Spent(elapsed, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--limit", type=float, default=2.2, help="of the ratio")
    options = parser.parse_args()
    commands = [command for names in GROUPS for command in (baseline(names), linting(names))]
    spent: list[list[Spent]] = [[] for _ in commands]
    for index in range(options.rounds + 1):
        for record, command in zip(spent, commands, strict=True):
            one = run(command)
            if index:
                record.append(one)
    table = Table("networks", "torch and model (s)", "linting (s)", "ratio", "processor time (s)", "ratio")
    for column in table.columns[1:]:
        column.justify = "right"
    ratios = []
    for index, names in enumerate(GROUPS):
        base, lint = spent[2 * index : 2 * index + 2]
        times = [median(s.elapsed for s in base), median(s.elapsed for s in lint)]
        work = [median(s.processor for s in base), median(s.processor for s in lint)]
        ratios.append(times[1] / times[0])
        table.add_row(
            " and ".join(names),
            *(f"{seconds:.2f}" for seconds in times),
            f"{ratios[-1]:.2f}",
            f"{work[0]:.2f}, {work[1]:.2f}",
            f"{work[1] / work[0]:.2f}",
        )
    Console().print(table)
    if max(ratio for ratio, names in zip(ratios, GROUPS, strict=True) if len(names) == 1) > options.limit:
        raise SystemExit(f"above {options.limit:g}")


if __name__ == "__main__":
    main()
