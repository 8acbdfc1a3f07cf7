"""What rewrites are worth where they run: PMRID and NAFNet on several engines, against what else one could do.

    python -m tests.benchmarks.deployment [--engines eager,onnxruntime,xnnpack] [--models PMRID,NAFNet] [--peers]
        [--seconds 10] [--write examples/guides/benchmarks.md] [--plot examples/deployment.png]
        [--json out/deployment.json]

For every engine a table: the original, its limit (its stride-1 depthwise convolutions taken out), what the paper does
step by step, preset `mofa` decided on that engine, and its exact lowerings alone; with `--peers` also what one would
take instead. All networks of a column are timed in one run, in turns, with the original once more as a control; what
decided our network was measured before, by itself, and is remembered in $MOFA_CACHE. Weights are random: times do not
depend on them, and what rewrites cost in quality is for `calibration.py` to say. The table goes to stdout, or with
`--write` between the markers of a file.

To see in seconds that all of it works (such times say nothing, and are not remembered):

    python -m tests.benchmarks.deployment --seconds 0.2 --input 1x3x64x64 --engines eager --models NAFNet
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from torch import Tensor

from mofa_compiler.autotune import benchmark as pieces
from mofa_compiler.base.errors import EngineError, MofaError
from mofa_compiler.cli.options import parse_shape
from mofa_compiler.graph.call_spec import InputSpec
from mofa_compiler.report.figures import check_format
from mofa_compiler.runtime import Compiled, Engine, Measurement, engines, race
from mofa_compiler.runtime.cache import VARIABLE
from tests.benchmarks.deployment_report import markdown, plot
from tests.benchmarks.files import replace_block, write_text
from tests.benchmarks.peers import Context, peers
from tests.benchmarks.variants import LIMIT, OURS, SUBJECTS, Subject, Variant, decided, fixed, subjects

MARKERS = ("<!-- deployment:begin -->", "<!-- deployment:end -->")
TRIAL = 1.0
"""Seconds below which the benchmark is only tried out: decisions are then measured as shortly, and forgotten"""


def measured(
    subject: Subject, constant: Sequence[Variant], engine: Engine, threads: int, x: Tensor, seconds: float, rivals: bool
) -> dict[str, Any]:
    """One network on one engine, as plain data: every variant's times, and what stands for a variant without any.

    Args:
        subject: the network.
        constant: its variants that are the same on all engines, the original first.
        engine: where to run them.
        threads: that it may use.
        x: the input.
        seconds: limit of the timing for each variant.
        rivals: whether peers take part.

    Raises:
        EngineError: the engine does not take the original.
    """
    own, decisions = decided(subject, engine.name, threads, x)
    compiled: dict[str, Compiled] = {}
    rows: dict[str, dict[str, Any]] = {}
    for variant in (*constant, *own):
        row: dict[str, Any] = {"network": variant.name, "peer": False, "note": "", "problem": variant.problem}
        rows[variant.name] = row
        if variant.totals is not None:
            row |= {"parameters": variant.totals.parameters, "macs": variant.totals.macs}
        if variant.module is not None:
            try:
                compiled[variant.name] = engine.compile(variant.module, [x], threads)
            except EngineError as error:
                if not compiled:
                    raise
                row["problem"] = str(error)
    if rivals:
        original, ours = constant[0], own[0]
        assert original.module is not None and original.totals is not None
        context = Context(
            engine, threads, original.module, x, original.totals.macs, ours.totals.macs if ours.totals else None
        )
        for peer in peers(context):
            rows[peer.name] = {"network": peer.name, "peer": True, "note": peer.note, "problem": peer.problem}
            if peer.compiled is not None:
                compiled[peer.name] = peer.compiled
    runners = list(compiled.values())
    result = race(runners, engine, threads, seconds=seconds * len(runners))
    for index, name in enumerate(compiled):
        one = Measurement.of(result, index, 0, engine, threads, [x])
        rows[name] |= {"ms": one.a_ms, "ratio": one.ratio, "interval": list(one.interval)}
        rows[name] |= {"verdict": one.verdict if index else None}
    shared = Measurement.of(result, 0, 0, engine, threads, [x]).to_data()
    kept = ("rounds", "stopped", "control", "control_interval", "noise")
    return {
        "rows": list(rows.values()),
        **{key: shared[key] for key in kept},
        "closed": _closed(rows),
        "decisions": decisions.to_data() if decisions else None,
    }


def _closed(rows: dict[str, dict[str, Any]]) -> float | None:
    """How much of the way from the original to its limit our network goes; None where there is no such way."""
    ours, limit = rows[OURS].get("ratio"), rows[LIMIT].get("ratio")
    return None if ours is None or limit is None or limit >= 1 else (1 - ours) / (1 - limit)


def benchmark(
    names: Sequence[str], chosen: dict[str, Subject], threads: int, shape: tuple[int, ...], seconds: float, rivals: bool
) -> dict[str, Any]:
    """All engines and networks, as plain data; an engine that cannot run is there with the reason."""
    x = InputSpec(shape).example()
    constant: dict[str, list[Variant]] = {}
    found = []
    for name in names:
        engine = engines()[name]
        entry: dict[str, Any] = {"engine": name, "missing": engine.missing(), "networks": {}}
        found.append(entry)
        if entry["missing"]:
            continue
        entry |= {"version": engine.version(), "processor": engine.processor()}
        for label, subject in chosen.items():
            print(f"{name}: {label}", file=sys.stderr, flush=True)
            constant.setdefault(label, fixed(subject, x))
            try:
                one = measured(subject, constant[label], engine, threads, x, seconds, rivals)
            except EngineError as error:
                one = {"rows": [], "problem": str(error)}
            entry["networks"][label] = one
    return {"schema": "mofa-deployment/1", "input": list(shape), "threads": threads, "engines": found}


@contextmanager
def decisions_within(seconds: float) -> Iterator[None]:
    """Below `TRIAL` seconds, decisions are measured shortly too, and neither read from the cache nor left in it."""
    if seconds >= TRIAL:
        yield
        return
    share = seconds / 10
    limits = {name: share * getattr(pieces, name) for name in ("PIECE_SECONDS", "WHOLE_SECONDS")}
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.dict(os.environ, {VARIABLE: folder}),
        patch.multiple(pieces, **limits),
    ):
        yield


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", type=_listed(engines()), default="eager,onnxruntime,xnnpack", metavar="NAMES")
    parser.add_argument("--models", type=_listed(SUBJECTS), default=",".join(SUBJECTS), metavar="NAMES")
    parser.add_argument("--input", type=_shape, default="1x3x256x256", metavar="SHAPE", help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="that an engine may use (default: %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="limit of the timing for each network (default: %(default)s)"
    )
    parser.add_argument("--peers", action="store_true", help="also Torch-Pruning, Inductor and onnxslim")
    parser.add_argument("--write", type=Path, metavar="FILE", help=f"put the table between {MARKERS[0]} and its end")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw it to a .png, .svg or .pdf")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    options = parser.parse_args()
    if options.threads < 1 or not options.seconds > 0:
        parser.error("--threads and --seconds have to be more than 0")
    try:  # before anything is measured
        if options.plot:
            options.plot.parent.mkdir(parents=True, exist_ok=True)
            check_format(options.plot)
        if options.write:
            replace_block(options.write, _block(options.write), MARKERS)
    except (MofaError, OSError, ValueError) as error:
        parser.error(str(error))
    chosen = subjects(options.models)
    with decisions_within(options.seconds):
        data = benchmark(options.engines, chosen, options.threads, options.input, options.seconds, options.peers)
    if options.json:
        write_text(options.json, json.dumps(data, indent=2, ensure_ascii=False) + "\n")
    if options.plot:
        plot(data, options.plot)
    if options.write:
        replace_block(options.write, markdown(data), MARKERS)
    else:
        print(markdown(data))
    return 0


def _block(file: Path) -> str:
    """What stands between the markers now; putting it back shows that they are there and the file can be written."""
    text = file.read_text(encoding="utf-8")
    return text.partition(MARKERS[0])[2].partition(MARKERS[1])[0].strip("\n")


def _listed(known: Any) -> Any:
    """Type of an option that takes several of these names, with commas between."""

    def names(text: str) -> list[str]:
        found = list(dict.fromkeys(name.strip() for name in text.split(",")))
        unknown = next((name for name in found if name not in known), None)
        if unknown is not None:
            raise argparse.ArgumentTypeError(f"there is no {unknown!r}: choose from {', '.join(known)}")
        return found

    return names


def _shape(text: str) -> tuple[int, ...]:
    try:
        shape = parse_shape(text)
    except Exception as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if len(shape) != 4 or shape[1] != 3:
        raise argparse.ArgumentTypeError("the networks take images: Nx3xHxW")
    return shape


if __name__ == "__main__":
    sys.exit(main())
