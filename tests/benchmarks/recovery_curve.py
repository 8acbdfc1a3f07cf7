"""PMRID's PSNR against minutes of recovery: rewritten with calibration, without data, and from random weights.

    python tests/benchmarks/recovery_curve.py --minutes 3 --out out/recovery

Trains on crops of `images.TRAINING` with raw noise (ISO 800 to 6400), evaluates on `images.HELD_OUT`, which nothing is
trained, calibrated or selected on (PSNR in dB, raw domain, mean over ISO 3200 and 6400). The time for evaluation does
not count. Prints a table, and writes recovery_curve.json and, with matplotlib, recovery_curve.svg.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from architectures import PMRID
from images import TRAINING, write_photographs
from mofa_compiler import Result, Roadmap, apply, recover
from mofa_compiler.base.errors import MofaError
from mofa_compiler.data import calibration_batches
from mofa_compiler.distillation import Status
from raw_images import RawCase, raw_cases, raw_psnr

CHECKPOINT = Path(__file__).parents[3] / "shared/data/pmrid_raw_denoiser.ckp"
NOISE = "raw:800-6400"
STARTS = ("calibrated", "data-free", "random")
REFERENCE = "original"
"""The original itself, trained likewise: how much of a gain is that it gets to know this noise"""

Curve = list[tuple[float, int, float]]
"""Minutes, steps and PSNR"""


def start(kind: str, network: nn.Module, roadmap: str, photographs: Path) -> Result:
    """The rewritten network with its weights from calibration, from the original alone, or drawn at random."""
    example = torch.rand(1, 4, 128, 128)
    if kind == "calibrated":
        batches = calibration_batches(photographs, channels=4, degradation=NOISE)
        return apply(network, roadmap, example, calibration=batches)
    if kind == REFERENCE:
        return apply(network, Roadmap([]), example)
    result = apply(network, roadmap, example)
    if kind == "random":
        torch.manual_seed(0)
        for module in result.model.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
    return result


def curve(
    result: Result, network: nn.Module, photographs: Path, cases: Sequence[RawCase], every: float, options: Any
) -> Curve:
    """Recover, and evaluate every so many minutes and in the end."""
    model = result.model.eval()
    points: Curve = [(0.0, 0, raw_psnr(model, cases)[1])]
    evaluating = 0.0

    def watch(status: Status) -> None:
        nonlocal evaluating
        minutes = (status.seconds - evaluating) / 60
        if minutes < points[-1][0] + every or status.progress >= 1:
            return
        began = time.monotonic()
        points.append((minutes, status.step, raw_psnr(model, cases)[1]))
        evaluating += time.monotonic() - began

    recovery = recover(
        result,
        network,
        photographs,
        degradation=NOISE,
        progress=watch,
        **{k: v for k, v in options.items() if v is not None},
    )
    points.append(((recovery.seconds - evaluating) / 60, recovery.steps, raw_psnr(model.eval(), cases)[1]))
    return points


def print_table(curves: Mapping[str, Curve], original: float, console: Console) -> None:
    table = Table("start", "minutes", "steps", "PSNR (dB)", "below the original", title=f"original {original:.2f} dB")
    for name, points in curves.items():
        for minutes, steps, psnr in points:
            table.add_row(name, f"{minutes:.2f}", str(steps), f"{psnr:.2f}", f"{original - psnr:.2f}")
        table.add_section()
    console.print(table)


def draw(curves: Mapping[str, Curve], original: float, noisy: float, file: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    for name, points in curves.items():
        axes.plot([point[0] for point in points], [point[2] for point in points], marker=".", label=name)
    axes.axhline(original, color="black", linestyle="--", linewidth=1, label="original")
    best = max(original, *(point[2] for points in curves.values() for point in points))
    axes.set(xlabel="minutes of recovery", ylabel="PSNR on held-out photographs (dB)", ylim=(noisy, best + 0.3))
    axes.legend()
    figure.savefig(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--roadmap", default="mofa")
    parser.add_argument("--starts", nargs="+", choices=(*STARTS, REFERENCE), default=STARTS)
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=float, help="of training a start (default: 2)")
    budget.add_argument("--steps", type=int)
    parser.add_argument("--every", type=float, default=0.25, help="minutes between evaluations (default: %(default)s)")
    parser.add_argument("--patch", type=int)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--lr", type=float)
    parser.add_argument("--clip", type=float)
    parser.add_argument("--ema", type=float)
    for weight in ("features", "output", "target"):
        parser.add_argument(f"--{weight}", type=float)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("out/recovery"))
    arguments = parser.parse_args()
    names = ("minutes", "steps", "patch", "batch", "lr", "clip", "ema", "features", "output", "target")
    options = {name: getattr(arguments, name) for name in names}
    if arguments.minutes is None and arguments.steps is None:
        options["minutes"] = 2.0
    torch.set_num_threads(arguments.threads)
    console, make = Console(), _network(arguments.checkpoint)
    cases = raw_cases()
    noisy, original = raw_psnr(make(), cases)
    curves: dict[str, Curve] = {}
    with tempfile.TemporaryDirectory() as temporary:
        write_photographs(TRAINING, Path(temporary))
        for kind in arguments.starts:
            network = make()
            try:
                result = start(kind, network, arguments.roadmap, Path(temporary))
            except MofaError as error:
                console.print(f"{kind} is left out: {error}")
                continue
            curves[kind] = curve(result, network, Path(temporary), cases, arguments.every, options)
            minutes, steps, psnr = curves[kind][-1]
            console.print(f"{kind}: {curves[kind][0][2]:.2f} → {psnr:.2f} dB in {minutes:.2f} min, {steps} steps")
    print_table(curves, original, console)
    arguments.out.mkdir(parents=True, exist_ok=True)
    document = {
        "original": original,
        "noisy": noisy,
        "options": {key: value for key, value in options.items() if value is not None},
        "device": "cuda" if torch.cuda.is_available() else f"cpu, {arguments.threads} threads",
        "curves": {
            name: [dict(zip(("minutes", "steps", "psnr"), point, strict=True)) for point in points]
            for name, points in curves.items()
        },
    }
    (arguments.out / "recovery_curve.json").write_text(json.dumps(document, indent=2) + "\n")
    try:
        draw(curves, original, noisy, arguments.out / "recovery_curve.svg")
    except ImportError:
        console.print("no plot: it needs the extra `plot`")


def _network(checkpoint: Path) -> Callable[[], nn.Module]:
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)

    def make() -> nn.Module:
        network = PMRID(channels=4)
        network.load_state_dict(state)
        return network.eval()

    return make


if __name__ == "__main__":
    main()
