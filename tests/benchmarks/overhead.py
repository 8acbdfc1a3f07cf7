"""How long `apply` takes against what any torch.fx tool has to do: trace once and propagate shapes once.

    python tests/benchmarks/overhead.py [--rounds 3] [--blocks 7 36 144 576]

Interleaved rounds in one process; prints medians and their ratio for NAFNet at several numbers of blocks. Shapes are
propagated on meta tensors by `torch.fx.passes.shape_prop`.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from rich.table import Table
from torch import fx
from torch.fx.passes.shape_prop import ShapeProp

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from architectures import NAFNet
from mofa_compiler import apply


def network(blocks: int) -> NAFNet:
    """NAFNet of width 16 with about the same number of blocks in every stage."""
    side = blocks // 7
    return NAFNet(width=16, middle_blk_num=blocks - 6 * side, enc_blk_nums=[side] * 3, dec_blk_nums=[side] * 3)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--blocks", type=int, nargs="+", default=[7, 36, 144, 576])
    parser.add_argument("--roadmap", default="mofa")
    options = parser.parse_args()
    table = Table("blocks", "convolutions", "fx trace (s)", "shapes (s)", "apply (s)", "ratio", "apply per conv (ms)")
    for column in table.columns:
        column.justify = "right"
    for blocks in options.blocks:
        model = network(blocks)
        meta = copy.deepcopy(model).to("meta")
        x = torch.rand(1, 3, 256, 256)
        traced = fx.symbolic_trace(meta)
        times: dict[str, list[float]] = {"trace": [], "shapes": [], "apply": []}
        work: dict[str, Callable[[], object]] = {
            "trace": lambda model=model: fx.symbolic_trace(model),
            "shapes": lambda traced=traced, x=x: ShapeProp(traced).propagate(x.to("meta")),
            "apply": lambda model=model, x=x: apply(model, options.roadmap, x),
        }
        for index in range(options.rounds + 1):
            for name, run in work.items():
                spent = seconds(run)
                if index:  # the first round warms up
                    times[name].append(spent)
        trace, shapes, whole = (median(times[name]) for name in work)
        convolutions = sum(isinstance(m, torch.nn.Conv2d) for m in model.modules())
        table.add_row(
            str(blocks),
            str(convolutions),
            f"{trace:.3f}",
            f"{shapes:.3f}",
            f"{whole:.3f}",
            f"{whole / (trace + shapes):.2f}",
            f"{1000 * whole / convolutions:.2f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
