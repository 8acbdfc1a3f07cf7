"""What trained checkpoints keep after calibration, on photographs and on synthetic images.

    python -m tests.benchmarks.calibration [--networks PMRID U-Net] [--crops 64] [--size 128] [--tuning 200]

Calibrates on noisy crops of `images.TRAINING` or of dead leaves, and evaluates on photographs which nothing is
calibrated on, PSNR in dB: PMRID's raw denoiser in the raw domain, mean over ISO 3200 and 6400; the dense U-Net, most of
whose blocks are called several times, on 256x256 tiles at sigma 25, with its blocks shared and unshared. Each column
has one more step than the one before it. Prints a table with the MACs and the seconds of each step.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from architectures import PMRID
from images import HELD_OUT, TRAINING, photograph, psnr, write_photographs
from mofa_compiler import Roadmap, apply
from mofa_compiler.calibration import Calibration
from mofa_compiler.data import calibration_batches
from mofa_compiler.passes import PConvToPDWConv, SepConvToPConv, Unshare, WidenPortion
from raw_images import raw_cases, raw_psnr
from tests.calibration import noise2noise

SOURCES = ("photographs", "synthetic")
CHECKPOINT = Path(__file__).parents[3] / "shared/data/pmrid_raw_denoiser.ckp"
TILE = 256
WIDE = [SepConvToPConv(), WidenPortion(where=("middle",)), WidenPortion(where=("cheap",))]
MOFA = Roadmap.load("mofa")


@dataclass(frozen=True)
class Subject:
    """A trained network, what degrades its input, what measures its quality, and what is done to it."""

    model: nn.Module
    channels: int
    noise: str
    quality: Callable[[nn.Module], float]
    roadmaps: Mapping[str, Roadmap]


def pmrid(checkpoint: Path) -> Subject:
    model = PMRID(channels=4)
    model.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True))
    cases = raw_cases()
    roadmaps = {
        "full, upsampling left alone": Roadmap([*WIDE, PConvToPDWConv(threshold=32)]),
        "complete (preset mofa)": MOFA,
        "complete, authors' choices (paper-pmrid)": Roadmap.load("paper-pmrid"),
    }
    return Subject(model.eval(), 4, "raw:3200-6400", lambda network: raw_psnr(network, cases)[1], roadmaps)


def dense(_: Path) -> Subject:
    roadmaps = {
        "preset mofa without unshare": Roadmap([pass_ for pass_ in MOFA if pass_.name != Unshare.name]),
        "complete (preset mofa)": MOFA,
    }
    return Subject(noise2noise.trained(), 3, "gaussian:25", tiled_psnr, roadmaps)


SUBJECTS = {"PMRID": pmrid, "U-Net": dense}


def tiled_psnr(network: nn.Module) -> float:
    """Mean over the tiles along the upper edge of two photographs, with white Gaussian noise clipped to [0, 1]."""
    found = []
    for name in HELD_OUT[:2]:
        for clean in photograph(name)[:, :TILE].split(TILE, 2):
            if clean.shape[2] == TILE:
                noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1)) * 25 / 255
                with torch.no_grad():
                    found.append(psnr(network((clean + noise).clamp(0, 1)[None])[0].clamp(0, 1), clean))
    return sum(found) / len(found)


def measure(subject: Subject, roadmap: Roadmap, batches: Iterable[Tensor], tuning: int) -> list[str]:
    """MACs, and PSNR without data, then after each further step of the calibration, with the seconds of each."""
    example = torch.rand(1, subject.channels, TILE, TILE)
    free = apply(subject.model, roadmap, example)
    figures = [f"{100 * (free.after.macs / free.before.macs - 1):+.0f} %", f"{subject.quality(free.model.eval()):.2f}"]
    settings = ({"fit": False, "tuning": 0}, {"tuning": 0}, {"tuning": tuning})
    for setting in settings:
        started = time.perf_counter()
        result = apply(subject.model, roadmap, example, Calibration(batches, **setting))  # type: ignore[arg-type]
        seconds = time.perf_counter() - started
        figures.append(f"{subject.quality(result.model.eval()):.2f} ({seconds:.0f} s)")
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT, help="PMRID's")
    parser.add_argument("--networks", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    parser.add_argument("--crops", type=int, default=64)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--tuning", type=int, default=200)
    parser.add_argument("--roadmaps", nargs="+", help="only these")
    parser.add_argument("--sources", nargs="+", choices=SOURCES, default=SOURCES)
    options = parser.parse_args()
    table = Table("network", "roadmap", "calibrated on", "MACs", "no data", "channels chosen", "fitted", "tuned")
    table.title = "PSNR in dB (seconds of apply)"
    with tempfile.TemporaryDirectory() as folder:
        write_photographs(TRAINING, Path(folder))
        for name in options.networks:
            subject = SUBJECTS[name](options.checkpoint)
            table.add_row(name, "original", "", "", f"{subject.quality(subject.model):.2f}")
            for label, roadmap in subject.roadmaps.items():
                for source in options.sources if not options.roadmaps or label in options.roadmaps else ():
                    images = calibration_batches(
                        folder if source == "photographs" else source,
                        channels=subject.channels,
                        degradation=subject.noise,
                        crops=options.crops,
                        size=options.size,
                    )
                    list(images)  # reading photographs and making leaves is not timed
                    row = [name, label, source, *measure(subject, roadmap, images, options.tuning)]
                    print(", ".join(row), file=sys.stderr, flush=True)
                    table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    main()
