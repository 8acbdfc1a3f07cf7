"""What eight bits cost and save: trained networks in fp32, in int8, and decided and quantized within a bound.

    python -m tests.benchmarks.precision [--networks NAFNet,PMRID,U-Net] [--engines onnxruntime,xnnpack]
        [--max-loss 0.25] [--crops 32] [--tuning 0] [--write examples/guides/benchmarks.md]

At 1x3x256x256 (PMRID 1x4x256x256) with one thread, all of a network and engine in one race. Quality is that of
photographs that nothing was calibrated on or chosen by, as the engine computes them, tile by tile; losses are against
the original in fp32 on the same tiles. Ours is preset `mofa` decided in int8 within `--max-loss` dB.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import torch
from rich.console import Console
from rich.table import Table

from mofa_compiler import Roadmap, apply
from mofa_compiler.base.errors import MofaError
from mofa_compiler.calibration import Calibration
from mofa_compiler.data import CalibrationImages
from mofa_compiler.runtime import Compiled, engine, race
from tests.benchmarks.files import replace_block
from tests.benchmarks.narrow_hidden import DENSE, subject
from tests.benchmarks.quantized import Tiled, mosaics

from images import TRAINING, write_photographs  # isort: skip  # examples/, which the above put on the path

MARKERS = ("<!-- precision:begin -->", "<!-- precision:end -->")
HEADER = ("network", "engine", "what", "change, photographs (dB)", "time ÷ fp32", "in float")
SIDE, CROP = 256, 128
SECONDS = 4.0
"""Of the race, for each network"""


def rows(name: str, where: str, photographs: Path, options: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    """One network on one engine: the original in both precisions, and ours."""
    model, channels, degradation, quality = subject(name)
    images = CalibrationImages(photographs, channels=channels, size=CROP, degradation=degradation, crops=options.crops)
    x, examples = torch.rand(1, channels, SIDE, SIDE), [[one] for one in mosaics(list(images), SIDE)]
    eight = engine(where, "int8")
    compiled: dict[str, Compiled] = {"original in fp32": engine(where).compile(model, [x])}
    floating = dict.fromkeys(("original in fp32", "original in int8"), "")
    compiled["original in int8"] = eight.calibrated(examples).compile(model, [x])
    roadmap = Roadmap.load("mofa").with_target(where, precision="int8", input=f"1x{channels}x{SIDE}x{SIDE}")
    calibration = Calibration(images, tuning=options.tuning)
    try:
        result = apply(model, roadmap, torch.rand(1, channels, CROP, CROP), calibration, max_loss=options.max_loss)
        assert result.decisions is not None
        ours = f"ours within {options.max_loss:g} dB ({result.decisions.chosen})"
        stays = result.decisions.floating
        compiled[ours] = eight.calibrated(examples, stays).compile(result.model.eval(), [x])
        floating[ours] = f"{len(stays)} layers" if stays else ""
    except MofaError as error:
        print(f"{name}, {where}: {error}", file=sys.stderr)
    found = race(list(compiled.values()), eight, 1, seconds=SECONDS * len(compiled))
    before = quality(Tiled(compiled["original in fp32"], SIDE))
    for index, (what, one) in enumerate(compiled.items()):
        after = quality(Tiled(one, SIDE)) if index else before
        change = " / ".join(f"{after[key] - before[key]:+.2f}" for key in before) if index else "0"
        ratio, (low, high) = found.ratio(index, 0)
        time = f"{ratio:.2f} ({low:.2f} to {high:.2f})" if index else "1"
        print(name, where, what, fmean(after.values()), time, file=sys.stderr, flush=True)
        yield name, where, what, change, time, floating[what]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=lambda text: text.split(","), default=["NAFNet", "PMRID", DENSE])
    parser.add_argument("--engines", type=lambda text: text.split(","), default=["onnxruntime", "xnnpack"])
    parser.add_argument("--max-loss", type=float, default=0.25)
    parser.add_argument("--crops", type=int, default=32)
    parser.add_argument("--tuning", type=int, default=0)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: list[tuple[str, ...]] = []
    with tempfile.TemporaryDirectory() as folder:
        write_photographs(TRAINING, Path(folder))
        for name in options.networks:
            for where in options.engines:
                found += rows(name, where, Path(folder), options)
    table = Table(*HEADER)
    for row in found:
        table.add_row(*row)
    Console().print(table)
    if options.write:
        lines = [HEADER, ("---",) * len(HEADER), *found]
        replace_block(options.write, "\n".join(f"| {' | '.join(row)} |" for row in lines), MARKERS)


if __name__ == "__main__":
    main()
