"""How long `lower-pconv` takes to decide on a layer of a chain, in which every decision depends on the one before.

    python tests/benchmarks/lower_pconv.py [--rounds 5] [--pairs 100 400 1600] [--limit 2]

A chain is that many pairs of a partial and a pointwise convolution. Prints the best of some rounds for each form that
has neighbours to agree on. Exits with 1 where a layer of the longest chain takes `--limit` times as long as one of the
shortest; what is not linear takes far longer.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2]))

from mofa_compiler import capture
from mofa_compiler.analysis.anatomy import infer
from mofa_compiler.analysis.network import Network
from mofa_compiler.nn.partial_conv import PConv2d
from mofa_compiler.passes import LowerPConv
from mofa_compiler.rewriting.engine import match

PASSES = (LowerPConv(), LowerPConv(form="born-apart"))


def chain(pairs: int) -> nn.Module:
    """Partial and pointwise convolutions between an input and an output convolution."""
    made = (layer for _ in range(pairs) for layer in (PConv2d(8, 2), nn.Conv2d(8, 8, 1)))
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), *made, nn.Conv2d(8, 3, 3, padding=1)).eval()


def seconds(network: Network, pass_: LowerPConv) -> float:
    """One `match` over a network that the pass has not seen yet, but whose layers are surveyed."""
    fresh = Network(network.program, network.anatomy)
    assert fresh.layers
    start = time.perf_counter()
    match(fresh, pass_)
    return time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pairs", type=int, nargs="+", default=[100, 400, 1600])
    parser.add_argument("--limit", type=float, default=2.0)
    options = parser.parse_args()
    table = Table("form", "pairs", "match (ms)", "per layer (µs)")
    for column in table.columns[1:]:
        column.justify = "right"
    per_layer: dict[str, list[float]] = {pass_.form: [] for pass_ in PASSES}
    for pairs in options.pairs:
        program = capture(chain(pairs), torch.rand(1, 3, 16, 16), compare=False)
        network = Network(program, infer(program))
        for pass_ in PASSES:
            best = min(seconds(network, pass_) for _ in range(options.rounds))
            per_layer[pass_.form].append(best / pairs)
            table.add_row(pass_.form, str(pairs), f"{1e3 * best:.1f}", f"{1e6 * best / pairs:.1f}")
    console = Console()
    console.print(table)
    worst = max(times[-1] / times[0] for times in per_layer.values())
    console.print(f"a layer of the longest chain takes {worst:.2f} times as long, allowed {options.limit:g}")
    return 0 if worst <= options.limit else 1


if __name__ == "__main__":
    sys.exit(main())
