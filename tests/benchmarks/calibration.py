"""What a trained checkpoint keeps after calibration: PMRID's raw denoiser, on photographs and on synthetic images.

    python tests/benchmarks/calibration.py [--crops 64] [--tuning 200] [--out out/calibration]

Calibrates on noisy crops (ISO 3200 to 6400) of `images.TRAINING` or of dead leaves, and evaluates on
`images.HELD_OUT`, which nothing is calibrated on (PSNR in dB, raw domain, mean over ISO 3200 and 6400). Each column has
one more step than the one before it. Prints a table with the seconds of each step.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from architectures import PMRID
from images import TRAINING, write_photographs
from mofa_compiler import Roadmap, apply
from mofa_compiler.calibration import Calibration
from mofa_compiler.data import calibration_batches
from mofa_compiler.passes import PConvToPDWConv, SepConvToPConv, WidenPortion
from raw_images import RawCase, raw_cases, raw_psnr

CHECKPOINT = Path(__file__).parents[3] / "shared/data/pmrid_raw_denoiser.ckp"
NOISE = "raw:3200-6400"
WIDE = [SepConvToPConv(), WidenPortion(where=("middle",)), WidenPortion(where=("cheap",))]
SOURCES = ("photographs", "synthetic")
ROADMAPS = {
    "full, upsampling left alone": Roadmap([*WIDE, PConvToPDWConv(threshold=32)]),
    "complete (preset mofa)": Roadmap.load("mofa"),
    "complete, authors' choices (paper-pmrid)": Roadmap.load("paper-pmrid"),
}


def measure(
    network: nn.Module, roadmap: Roadmap, batches: Iterable[Tensor], tuning: int, cases: list[RawCase]
) -> list[str]:
    """PSNR of the network without data, then after each further step of the calibration, and the seconds of each."""
    example = torch.rand(1, 4, 128, 128)
    figures = [f"{raw_psnr(apply(network, roadmap, example).model, cases)[1]:.2f}"]
    settings = ({"fit": False, "tuning": 0}, {"tuning": 0}, {"tuning": tuning})
    for setting in settings:
        started = time.perf_counter()
        result = apply(network, roadmap, example, Calibration(batches, **setting))  # type: ignore[arg-type]
        seconds = time.perf_counter() - started
        figures.append(f"{raw_psnr(result.model, cases)[1]:.2f} ({seconds:.0f} s)")
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--crops", type=int, default=64)
    parser.add_argument("--tuning", type=int, default=200)
    parser.add_argument("--roadmaps", nargs="+", choices=ROADMAPS, default=list(ROADMAPS))
    parser.add_argument(
        "--sources", nargs="+", choices=("photographs", "synthetic"), default=["photographs", "synthetic"]
    )
    options = parser.parse_args()
    network = PMRID(channels=4)
    network.load_state_dict(torch.load(options.checkpoint, map_location="cpu", weights_only=True))
    network.eval()
    cases = raw_cases()
    _, original = raw_psnr(network, cases)
    table = Table("roadmap", "calibrated on", "no data", "channels chosen", "fitted", "tuned")
    table.title = f"original {original:.2f} dB; PSNR in dB (seconds of apply)"
    with tempfile.TemporaryDirectory() as folder:
        write_photographs(TRAINING, Path(folder))
        for name in options.roadmaps:
            for source in options.sources:
                images = calibration_batches(
                    folder if source == "photographs" else source, channels=4, degradation=NOISE, crops=options.crops
                )
                list(images)  # reading photographs and making leaves is not timed
                row = measure(network, ROADMAPS[name], images, options.tuning, cases)
                print(f"{name}, {source}: {', '.join(row)}", file=sys.stderr, flush=True)
                table.add_row(name, source, *row)
    Console().print(table)


if __name__ == "__main__":
    main()
