"""What linting costs from a cold start, against importing torch and building the model.

    python tests/benchmarks/startup.py [--rounds 15] [--command "python -m mofa_compiler.cli lint {targets}"]

Fresh processes in turns, PMRID, NAFNet and the two in one process: medians of elapsed and of processor time, and their
ratios. The first round warms the file cache and does not count. Exits with 1 where the ratio of medians of elapsed time
is above 1.5.

Without a command it is what linting has to do: import the command line, load the targets, capture, find the anatomy,
survey, and let all passes match.
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
LARGEST_RATIO = 1.5

NETWORKS = {"PMRID": "examples/architectures/pmrid.py:PMRID", "NAFNet": "examples/architectures/nafnet.py:NAFNet"}
GROUPS = (("PMRID",), ("NAFNet",), ("PMRID", "NAFNet"))

FRONT_END = """
import sys
import mofa_compiler.cli
from mofa_compiler.cli.options import load_model
from mofa_compiler.anatomy import infer
from mofa_compiler.errors import MofaError
from mofa_compiler.network import Network
from mofa_compiler.registry import available
from mofa_compiler.rewriting import match
from mofa_compiler.tracing import capture

for target in sys.argv[1:]:
    model, _ = load_model(target, None, None, None, None)
    program = capture(model)
    network = Network(program, infer(program))
    network.totals
    for kind in available().values():
        try:
            kind().prepare(network)
        except MofaError:
            continue
        match(network, kind())
"""


class Spent(NamedTuple):
    """Seconds that one process took."""

    elapsed: float
    processor: float


def baseline(names: tuple[str, ...]) -> list[str]:
    """The process that imports torch and builds the networks."""
    lines = [f"from architectures.{name.lower()} import {name}; {name}()" for name in names]
    return [sys.executable, "-c", "\n".join(["import torch", *lines])]


def linting(names: tuple[str, ...], command: str | None) -> list[str]:
    """The process that lints them."""
    targets = [NETWORKS[name] for name in names]
    if command is None:
        return [sys.executable, "-c", FRONT_END, *targets]
    return shlex.split(command.format(targets=shlex.join(targets)))


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
    parser.add_argument("--command", help="what lints; {targets} stands for the networks")
    options = parser.parse_args()
    commands = [command for names in GROUPS for command in (baseline(names), linting(names, options.command))]
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
    if max(ratios) > LARGEST_RATIO:
        raise SystemExit(f"above {LARGEST_RATIO:g}")


if __name__ == "__main__":
    main()
