"""What trained checkpoints keep where a target decided: quality and time of the decided, calibrated networks.

    python -m tests.benchmarks.decided_quality [--engines eager,onnxruntime,xnnpack] [--networks PMRID,NAFNet]
        [--crops 32] [--max-loss DB] [--write README.md] [--json out/decided_quality.json]

Preset `mofa` is decided on each engine at 256x256 with one thread (measured, or read from $MOFA_CACHE) and calibrated
on crops of `images.TRAINING`. PSNR in dB is of `images.HELD_OUT`, on which nothing is calibrated: PMRID's published raw
denoiser at ISO 3200 and 6400 in the raw domain (all cases' mean), this project's NAFNet at sigma 25 (by photograph).
With `--max-loss`, layers are rewritten until the loss reaches that bound. PMRID takes its checkpoint from ../shared.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from images import TRAINING, photograph, psnr, write_photographs
from keep_a_checkpoint import EVALUATED, network
from mofa_compiler import Roadmap, apply
from mofa_compiler.base.errors import MofaError
from mofa_compiler.calibration import Calibration
from mofa_compiler.data import CalibrationImages
from raw_images import raw_cases, raw_psnr
from tests.benchmarks.calibration import CHECKPOINT
from tests.benchmarks.files import replace_block, write_text

MARKERS = ("<!-- decided-quality:begin -->", "<!-- decided-quality:end -->")
SIGMA = 25
MULTIPLE = 16
"""NAFNet's inputs are cropped to multiples of this, since it halves its input four times"""


def pmrid_quality(model: nn.Module) -> dict[str, float]:
    """PSNR in dB, mean over all raw cases."""
    return {"held-out raw images": raw_psnr(model, raw_cases())[1]}


def nafnet_quality(model: nn.Module) -> dict[str, float]:
    """PSNR in dB of each photograph, with white Gaussian noise of standard deviation `SIGMA`/255."""
    figures = {}
    for name in EVALUATED:
        clean = photograph(name)
        clean = clean[:, : clean.shape[1] // MULTIPLE * MULTIPLE, : clean.shape[2] // MULTIPLE * MULTIPLE]
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1)) * SIGMA / 255
        with torch.no_grad():
            figures[name] = psnr(model((clean + noise)[None])[0].clamp(0, 1), clean)
    return figures


@dataclass(frozen=True)
class Subject:
    """A trained network: how `keep_a_checkpoint` calls it, and what measures its quality."""

    name: str
    quality: Callable[[nn.Module], dict[str, float]]


SUBJECTS: Mapping[str, Subject] = {
    "PMRID": Subject("pmrid", pmrid_quality),
    "NAFNet": Subject("nafnet", nafnet_quality),
}


def measured(
    label: str, engines: list[str], photographs: Path, crops: int, tuning: int, max_loss: float | None
) -> dict[str, Any]:
    """The checkpoint as it is and as each engine decided it, as plain data."""
    subject = SUBJECTS[label]
    model, channels, degradation = network(subject.name, CHECKPOINT)
    found: dict[str, Any] = {"network": label, "original": subject.quality(model), "engines": []}
    for engine in engines:
        print(f"{label}: {engine}", file=sys.stderr, flush=True)
        images = CalibrationImages(photographs, channels=channels, size=128, degradation=degradation, crops=crops)
        roadmap = Roadmap.load("mofa").with_target(engine, threads=1, input=f"1x{channels}x256x256")
        entry: dict[str, Any] = {"engine": engine}
        found["engines"].append(entry)
        started = time.perf_counter()
        try:
            calibration = Calibration(images, tuning=tuning)
            example = torch.rand(1, channels, 128, 128)
            result = apply(model, roadmap, example, calibration=calibration, max_loss=max_loss)
        except MofaError as error:
            entry["problem"] = str(error)
            continue
        assert result.decisions is not None
        entry |= {
            "psnr": subject.quality(result.model.eval()),
            "seconds": time.perf_counter() - started,
            "decided": result.decisions.sentence,
            "parameters": [result.before.parameters, result.after.parameters],
            "macs": [result.before.macs, result.after.macs],
        }
        if (final := result.decisions.final) is not None:
            entry |= {"ratio": final.ratio, "interval": list(final.interval)}
    return found


def markdown(data: Mapping[str, Any]) -> str:
    """A table: one row a network and engine."""
    bound = "" if data["max_loss"] is None else f", `--max-loss {data['max_loss']:g}dB`"
    lines = [
        f"Calibrated on {data['crops']} crops of photographs{bound}; PSNR in dB of photographs that were not used.",
        "",
        "| checkpoint | engine | time ÷ original's, when decided | PSNR, original | decided and calibrated | change |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for network_ in data["networks"]:
        original = network_["original"]
        for entry in network_["engines"]:
            row = [network_["network"], entry["engine"]]
            if "problem" in entry:
                row += ["–", _figures(original), entry["problem"], "–"]
            else:
                changes = {name: value - original[name] for name, value in entry["psnr"].items()}
                change = " / ".join(f"{value:+.2f}" for value in changes.values())
                row += [_time(entry), _figures(original), _figures(entry["psnr"]), change]
            lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def _time(entry: Mapping[str, Any]) -> str:
    if "ratio" not in entry:
        return "1 (left as it is)"
    low, high = entry["interval"]
    return f"{entry['ratio']:.2f} ({low:.2f} to {high:.2f})"


def _figures(figures: Mapping[str, float]) -> str:
    return " / ".join(f"{value:.2f}" for value in figures.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", default="eager,onnxruntime,xnnpack", metavar="NAMES")
    parser.add_argument("--networks", default=",".join(SUBJECTS), metavar="NAMES")
    parser.add_argument("--crops", type=int, default=32, help="of 128x128 to calibrate on (default: %(default)s)")
    parser.add_argument("--tuning", type=int, default=200, help="steps of the calibration (default: %(default)s)")
    parser.add_argument("--max-loss", type=float, metavar="DB", help="bound of the loss in dB")
    parser.add_argument("--write", type=Path, metavar="FILE", help=f"put the table between {MARKERS[0]} and its end")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    options = parser.parse_args()
    names = options.networks.split(",")
    unknown = next((name for name in names if name not in SUBJECTS), None)
    if unknown is not None:
        parser.error(f"there is no network {unknown!r}: choose from {', '.join(SUBJECTS)}")
    with tempfile.TemporaryDirectory() as folder:
        write_photographs(TRAINING, Path(folder))
        networks = [
            measured(name, options.engines.split(","), Path(folder), options.crops, options.tuning, options.max_loss)
            for name in names
        ]
    data = {"crops": options.crops, "max_loss": options.max_loss, "networks": networks}
    if options.json:
        write_text(options.json, json.dumps(data, indent=2, ensure_ascii=False) + "\n")
    if options.write:
        replace_block(options.write, markdown(data), MARKERS)
    else:
        print(markdown(data))
    return 0


if __name__ == "__main__":
    sys.exit(main())
