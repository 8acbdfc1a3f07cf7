"""Our front against what else one could do: trained networks, quality on unseen photographs, times of one race.

    python -m tests.benchmarks.front [--networks NAFNet,PMRID,U-Net] [--engines onnxruntime,xnnpack]
        [--losses 0.05,0.15,0.4,1] [--crops 32] [--tuning 200] [--ratios 0.125,0.25,0.375,0.5] [--no-peers]
        [--write examples/guides/benchmarks.md] [--json out/front.json]

For every network and engine one table, at 1x3x256x256 (PMRID 1x4x256x256) with one thread: what `mofa_compiler.front`
makes within these losses and its exact lowerings alone; Torch-Pruning at several ratios, without training, and
distilled (MSE to the original's output on the crops that ours are calibrated on) for as many CPU seconds in all as our
front took to price and to calibrate; the engine's own int8, calibrated on the same crops; and the physical limit, the
time that the network's MACs take at the peak of a large matrix product, a 1x1 convolution of 256 channels at 64x64.
All of them run in one race. Losses in dB are of photographs that nothing was calibrated on, as in
`tests.benchmarks.narrow_hidden`. PMRID and the U-Net take their checkpoints from ../shared; what was measured before is
remembered in $MOFA_CACHE.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mofa_compiler import Roadmap
from mofa_compiler.base.errors import EngineError, MofaError
from mofa_compiler.bundle import load
from mofa_compiler.calibration import Calibration
from mofa_compiler.data import CalibrationImages
from mofa_compiler.frontier import front
from mofa_compiler.report.priced import EXACT
from mofa_compiler.result.quality import Bound
from mofa_compiler.runtime import Compiled, Engine, engine, race
from tests.benchmarks.deciding import Clock
from tests.benchmarks.files import replace_block, write_text
from tests.benchmarks.front_table import LIMIT, ORIGINAL, OURS, PEER, markdown
from tests.benchmarks.narrow_hidden import DENSE, Quality, subject
from tests.benchmarks.peers import UnmetError, distilled, pruned_by, unprunable
from tests.benchmarks.quantized import Tiled, mosaics, quantized
from tests.benchmarks.variants import macs

from images import TRAINING, write_photographs  # isort: skip  # examples/, which the above put on the path

MARKERS = ("<!-- front:begin -->", "<!-- front:end -->")
NETWORKS = ("NAFNet", "PMRID", DENSE)
SIDE, CROP = 256, 128
PEAK = (256, 64)
"""Channels and side of the matrix product that shows what the machine can do"""
SECONDS = 4.0
"""Of the race, for each network"""
FITTING = {"pricing": "fitting", "calibrating": "fitting"}


@dataclass
class Entry:
    """What takes part in a race: its row of the table, and what runs; several rows may be of networks alike."""

    rows: list[dict[str, Any]]
    compiled: Compiled


@dataclass(frozen=True)
class Setting:
    """One network on one engine.

    Attributes:
        model: the original; `x`: what it is timed on; `quality`: what measures it, by image.
        before: that of the original.
        images: what is calibrated on.
    """

    model: nn.Module
    engine: Engine
    x: Tensor
    quality: Quality
    before: dict[str, float]
    images: CalibrationImages

    def changes(self, network: nn.Module) -> dict[str, float]:
        """By image, in dB."""
        return _less(self.quality(network.eval()), self.before)

    def compiled(self, network: nn.Module) -> Compiled:
        return self.engine.compile(network, [self.x])


def measured(name: str, engine_name: str, photographs: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One network on one engine, as plain data."""
    model, channels, degradation, quality = subject(name)
    images = CalibrationImages(photographs, channels=channels, size=CROP, degradation=degradation, crops=options.crops)
    x = torch.rand(1, channels, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        one = Setting(model, engine(engine_name), x, quality, quality(model), images)
    row = {"name": "original", "kind": ORIGINAL, "macs": macs(model, x)}
    entries = [Entry([row], one.compiled(model))]
    clock = Clock(phases=FITTING)
    try:
        entries += _ours(one, options.losses, options.tuning, clock)
    except MofaError as error:
        return {"network": name, "engine": engine_name, "problem": str(error)}
    fitting = clock.seconds["fitting"]
    failed: list[dict[str, Any]] = []
    if options.peers:
        for make in (_pruned(one, options.ratios, fitting / len(options.ratios)), _int8(one)):
            for entry in make:
                if isinstance(entry, Entry):
                    entries.append(entry)
                else:
                    failed.append(entry)
    width, side = PEAK
    product, given = nn.Conv2d(width, width, 1), torch.rand(1, width, side, side)
    entries.append(Entry([], one.engine.compile(product.eval(), [given])))
    found = _raced(entries, one.engine, macs(product, given))
    return {
        "network": name,
        "engine": engine_name,
        "version": one.engine.version(),
        "processor": one.engine.processor(),
        "before": one.before,
        "seconds": clock.seconds.total(),
        "fitting": fitting,
        **found,
        "rows": [*found["rows"], *failed],
    }


def _ours(one: Setting, losses: Sequence[float], tuning: int, clock: Clock) -> Iterator[Entry]:
    """The front's networks."""
    roadmap = Roadmap.load("mofa").with_target(one.engine.name, threads=1, input="x".join(map(str, one.x.shape)))

    def tell(step: str, done: int, total: int) -> None:
        clock(step, done, total)
        if step.startswith(("pricing", "calibrating", "measuring all")):
            _say(f"{clock.seconds.total():.0f} s: {step}")

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "front")
        data = front(
            one.model,
            roadmap,
            one.x[..., :CROP, :CROP],
            Calibration(one.images, tuning=tuning),
            out=out,
            bounds=[Bound("loss", limit) for limit in losses],
            compare=False,
            progress=tell,
        )
        clock("", 0, 0)
        for point in data.points:
            if point.kind == "front":
                network = load(out / point.bundle)
                label = (
                    "ours: exact lowerings alone" if point.name == EXACT else f"ours: at most {point.limit:g} dB lost"
                )
                row = {"name": label, "kind": OURS, "exact": point.name == EXACT}
                row |= {"macs": macs(network, one.x), "changes": one.changes(network), "on_crops": point.value}
                yield Entry([row], one.compiled(network))


def _pruned(one: Setting, ratios: Sequence[float], seconds: float) -> Iterator[Entry | dict[str, Any]]:
    """Torch-Pruning's networks, each as it is pruned and after so many seconds of distillation."""
    if find_spec("torch_pruning") is None:
        yield {"name": "Torch-Pruning", "kind": PEER, "problem": "not installed: pip install torch-pruning"}
        return
    kept, batches = unprunable(one.model, one.x), list(one.images)
    for ratio in ratios:
        name = f"Torch-Pruning, {ratio:.3g} of the channels"
        _say(name)
        try:
            network = pruned_by(one.model, one.x, ratio, kept)
            compiled = one.compiled(network)
        except (UnmetError, EngineError) as error:
            yield {"name": name, "kind": PEER, "problem": str(error)}
            continue
        row = {"name": name, "kind": PEER, "macs": macs(network, one.x), "changes": one.changes(network)}
        trained = copy.deepcopy(network)
        steps = distilled(trained, one.model, batches, seconds)
        label = f"{name}, distilled {seconds:.0f} s ({steps} steps)"
        yield Entry([row, {**row, "name": label, "changes": one.changes(trained)}], compiled)


def _int8(one: Setting) -> Iterator[Entry | dict[str, Any]]:
    """The engine's own quantization; its quality is that of tiles, against the original in the same tiles."""
    name = "int8 of the engine"
    _say(name)
    try:
        packed = quantized(one.engine, one.model, mosaics(list(one.images), SIDE))
        compiled = one.engine.load(packed, [one.x])
    except (UnmetError, EngineError) as error:
        yield {"name": name, "kind": PEER, "problem": str(error)}
        return
    with one.engine.running(1):
        both = [one.quality(Tiled(tiles, SIDE)) for tiles in (compiled, one.compiled(one.model))]
    yield Entry([{"name": name, "kind": PEER, "changes": _less(*both)}], compiled)


def _raced(entries: Sequence[Entry], where: Engine, product: int) -> dict[str, Any]:
    """All of them in one race, the last one a matrix product of so many MACs; rows with their times."""
    _say("race")
    run = race([entry.compiled for entry in entries], where, 1, seconds=SECONDS * len(entries))
    exact = next(index for index, entry in enumerate(entries) if any(row.get("exact") for row in entry.rows))
    medians, rows = run.medians, list[dict[str, Any]]()
    for index, entry in enumerate(entries):
        ratio, interval = run.ratio(index, 0)
        times = {"ms": medians[index], "ratio": ratio, "interval": list(interval)}
        times["to_exact"] = run.ratio(index, exact)[0]
        rows += [{**row, **times} for row in entry.rows]
    peak = product / medians[-1]
    ms = rows[0]["macs"] / peak
    share = ms / medians[0]
    rows.append(
        {
            "name": f"limit: the original's MACs at the peak of a matrix product, {peak / 1e6:.1f} GMAC/s",
            "kind": LIMIT,
            "ms": ms,
            "ratio": share,
            "interval": [share, share],
            "to_exact": ms / medians[exact],
            "macs": rows[0]["macs"],
        }
    )
    return {"rows": rows, "control": list(run.control[1]), "rounds": len(run.times), "stopped": run.stopped}


def _less(after: dict[str, float], before: dict[str, float]) -> dict[str, float]:
    return {name: after[name] - before[name] for name in before}


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def _numbers(text: str) -> list[float]:
    return [float(one) for one in text.split(",")]


def _names(known: Sequence[str]) -> Callable[[str], list[str]]:
    def names(text: str) -> list[str]:
        unknown = next((name for name in text.split(",") if name not in known), None)
        if unknown is not None:
            raise argparse.ArgumentTypeError(f"there is no {unknown!r}: choose from {', '.join(known)}")
        return text.split(",")

    return names


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=_names(NETWORKS), default=list(NETWORKS), metavar="NAMES")
    parser.add_argument("--engines", type=lambda text: text.split(","), default=["onnxruntime", "xnnpack"])
    parser.add_argument("--losses", type=_numbers, default=[0.05, 0.15, 0.4, 1.0], help="in dB, one network each")
    parser.add_argument("--crops", type=int, default=32, help="of 128x128 to calibrate on (default: %(default)s)")
    parser.add_argument("--tuning", type=int, default=200, help="steps of the calibration (default: %(default)s)")
    parser.add_argument("--ratios", type=_numbers, default=[0.125, 0.25, 0.375, 0.5], help="of Torch-Pruning")
    parser.add_argument("--no-peers", dest="peers", action="store_false", help="our front alone")
    parser.add_argument("--write", type=Path, metavar="FILE", help=f"put the tables between {MARKERS[0]} and its end")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data: dict[str, Any] = {"schema": "mofa-front-benchmark/1", "crops": options.crops, "tuning": options.tuning}
    data["races"] = []
    with tempfile.TemporaryDirectory() as folder:
        write_photographs(TRAINING, Path(folder))
        for name in options.networks:
            for where in options.engines:
                _say(f"{name}, {where}")
                data["races"].append(measured(name, where, Path(folder), options))
    if options.json:
        write_text(options.json, json.dumps(data, indent=2, ensure_ascii=False) + "\n")
    if options.write:
        replace_block(options.write, markdown(data), MARKERS)
    else:
        print(markdown(data))
    return 0


if __name__ == "__main__":
    sys.exit(main())
