"""What trained checkpoints keep with fewer hidden channels, without training: PSNR, MACs and seconds.

    python -m tests.benchmarks.narrow_hidden [--networks NAFNet,PMRID,U-Net] [--keep 3/4,1/2] [--crops 32] [--tuning 0]

Pass `narrow-hidden` alone: without data, calibrated on synthetic images, and on crops of `images.TRAINING`. PSNR in dB
is of photographs on which nothing is calibrated, as in `tests.benchmarks.decided_quality`; of the dense U-Net, most of
whose layers are shared between calls, of 384x384 pixels at sigma 25. PMRID and the U-Net take their checkpoints from
../shared.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from images import TRAINING, photograph, psnr, write_photographs
from keep_a_checkpoint import EVALUATED, network
from mofa_compiler import Roadmap, apply
from mofa_compiler.calibration import Calibration
from mofa_compiler.data import CalibrationImages
from mofa_compiler.passes import NarrowHidden
from tests.benchmarks.calibration import CHECKPOINT
from tests.benchmarks.decided_quality import SUBJECTS
from tests.calibration import noise2noise

DENSE = "U-Net"

Quality = Callable[[nn.Module], dict[str, float]]


def dense_quality(model: nn.Module) -> dict[str, float]:
    """PSNR in dB of the upper left of each photograph, with white Gaussian noise clipped to [0, 1]."""
    figures = {}
    for name in EVALUATED:
        clean = photograph(name)[:, :384, :384]
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1)) * 25 / 255
        with torch.no_grad():
            figures[name] = psnr(model((clean + noise).clamp(0, 1)[None])[0].clamp(0, 1), clean)
    return figures


def subject(name: str) -> tuple[nn.Module, int, str, Quality]:
    """A trained network, the channels of its input, how these are degraded, and what measures its quality."""
    if name == DENSE:
        return noise2noise.trained(), 3, "gaussian:25", dense_quality
    found = SUBJECTS[name]
    return *network(found.name, CHECKPOINT), found.quality


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=lambda text: text.split(","), default=[*reversed(SUBJECTS), DENSE])
    parser.add_argument("--keep", type=lambda text: text.split(","), default=["3/4", "1/2"])
    parser.add_argument("--crops", type=int, default=32)
    parser.add_argument("--tuning", type=int, default=0, help="steps of the whole network")
    options = parser.parse_args()
    table = Table("network", "kept", "calibrated on", "MACs", "PSNR (dB)", "change", "CPU seconds")
    with tempfile.TemporaryDirectory() as folder:
        write_photographs(TRAINING, Path(folder))
        for name in options.networks:
            model, channels, degradation, quality = subject(name)
            before = quality(model)
            table.add_row(name, "all", "", "", " / ".join(f"{value:.2f}" for value in before.values()), "", "")
            for keep in options.keep:
                pass_ = Roadmap.from_dict({"pass": [{"name": NarrowHidden.name, "keep": keep}]})
                for label, source in (("nothing", None), ("synthetic images", "synthetic"), ("photographs", folder)):
                    images = source and CalibrationImages(
                        source, channels=channels, size=128, degradation=degradation, crops=options.crops
                    )
                    calibration = Calibration(list(images), tuning=options.tuning) if images else None  # not timed
                    started = time.process_time()
                    result = apply(model, pass_, torch.rand(1, channels, 128, 128), calibration)
                    seconds = time.process_time() - started
                    after = quality(result.model.eval())
                    figures = (" / ".join(f"{value:.2f}" for value in after.values()),)
                    change = " / ".join(f"{after[key] - before[key]:+.2f}" for key in before)
                    macs = f"{100 * (result.after.macs / result.before.macs - 1):+.0f} %"
                    row = [name, keep, label, macs, *figures, change, f"{seconds:.0f}"]
                    print(", ".join(row), file=sys.stderr, flush=True)
                    table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    main()
