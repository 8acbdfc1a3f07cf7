"""`mofa measure`: how long networks take on an engine."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..base.atomic_files import is_folder
from . import completion, options

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..base.progress import Progress
    from ..graph.call_spec import CallSpec
    from ..loading.input_files import Make
    from ..runtime import Compiled, Engine

_DEFAULTS = ("xnnpack", "onnxruntime", "eager")
"""Where networks run that no engine is named for: where phones run them, else what is there; eager always is"""


def measure(
    networks: Annotated[
        list[str],
        typer.Argument(
            metavar="A [B]...", help="Bundles (folders), or architectures: package.module:Class, file.py:Class."
        ),
    ],
    engine: Annotated[
        list[str] | None,
        typer.Option(
            "--engine",
            metavar="NAME",
            help="Where to run them; repeatable, or several with commas. `mofa engines` lists them.",
            show_default=f"the first of {', '.join(_DEFAULTS)} that is installed",
            autocompletion=completion.engines,
        ),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, metavar="N", help="Threads that the engine may use.")] = 1,
    precision: options.Precision = None,
    inputs: Annotated[list[str] | None, options.shapes("the first network's own")] = None,
    arguments: options.Arguments = None,
    seconds: Annotated[float, typer.Option(min=0.1, metavar="S", help="Limit of the timing, for each engine.")] = 20.0,
    tolerance: Annotated[
        float, typer.Option(min=0.0, metavar="SHARE", help="Stop when every ratio is known to this share.")
    ] = 0.01,
    per_layer: Annotated[
        bool, typer.Option("--per-layer", help="Also the time of each layer, where the engine can tell.")
    ] = False,
    memory: Annotated[
        bool, typer.Option("--memory", help="Also the peak memory of a run, in a process of its own.")
    ] = False,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the times to a .png, .svg or .pdf.")] = None,
    record: Annotated[
        bool, typer.Option("--record", help="Keep the times in the reports of the bundles that are compared with A.")
    ] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Time networks against the first of them.

    Each is compiled once. Then they run in turns, with the first once more as a control, until every ratio is known
    well enough or the time is over. Ratios are B ÷ A: below 1 where B is faster. What the control shows of the
    machine's noise widens their intervals, and a ratio whose interval holds 1 is called noise. Times do not depend on
    weights, so architectures need no checkpoint; nor on the values by which networks are quantized in int8, so these
    are random. This runs the bundles' model.py, so measure what you trust.

    \b
    mofa measure arch.py:Net net-mofa --engine onnxruntime,xnnpack
    mofa measure arch.py:Net net-mofa --record
    mofa measure net-mofa --engine eager --per-layer --memory
    mofa measure arch.py:Net net-a net-b --threads 4 --input 1x3x512x512 --json
    """
    given_inputs = options.parse_inputs(inputs)
    options.refuse_with_quiet(quiet, {"--json": as_json, "--per-layer": per_layer})
    if record:
        _check_recording(networks)
    if plot is not None:
        options.check_figure(plot, "--plot")
    names = [name.strip() for given in engine or () for name in given.split(",")]

    from ..runtime import engine as named
    from ..runtime import engines as known

    if not names:
        names = [name for name in _DEFAULTS if known()[name].missing() is None][:1]
    chosen = [named(name, precision or "fp32") for name in dict.fromkeys(names)]
    with options.prints_to_stderr(), options.progress_bar(quiet) as phase:
        loaded = [_load(source, arguments) for source in networks]
        modules = {label: module for label, (module, _) in zip(_labels(networks), loaded, strict=True)}
        if record:
            _check_original(networks, loaded[0][0])
        if not quiet and (note := _other_weights(networks)):
            print(note, file=sys.stderr)
        example = _example(loaded[0], given_inputs)
        measured = []
        for one in chosen:
            tell = phase(one.name)
            measured.append(_measured(one, modules, example, threads, tolerance, seconds, per_layer, memory, tell))
    data = {
        "schema": "mofa-measurement/1",
        "networks": [{"name": name, "source": source} for name, source in zip(modules, networks, strict=True)],
        "inputs": [{"shape": list(x.shape), "dtype": str(x.dtype).removeprefix("torch.")} for x in example],
        "engines": measured,
    }
    if plot is not None:
        from ..report.printing.measured import plot_measured

        plot_measured(data, plot)
    if as_json:
        print(json.dumps(data, indent=2, ensure_ascii=False))
    elif not quiet:
        from ..report.printing.measured import print_measured

        print_measured(data, options.stdout_console())
        options.print_run(source for source in networks if is_folder(Path(source).expanduser()))
    if record:
        sys.stdout.flush()
        for folder in _record(networks, measured, example):
            if not quiet:
                print(f"recorded in {folder}", file=sys.stderr)


def _measured(
    engine: Engine,
    modules: dict[str, nn.Module],
    inputs: Sequence[Tensor],
    threads: int,
    tolerance: float,
    seconds: float,
    per_layer: bool,
    memory: bool,
    tell: Progress,
) -> dict[str, Any]:
    """All networks on one engine, as plain data."""
    from ..runtime import Measurement, race

    compiled: dict[str, Compiled] = {}
    for done, (name, module) in enumerate(modules.items()):
        tell(f"compiling {name}", done, len(modules))
        compiled[name] = engine.compile(module, inputs, threads)
    start = time.perf_counter()

    def tell_round(rounds: int, width: float) -> None:
        tell(f"round {rounds}, ±{100 * width:.1f} %", int(time.perf_counter() - start), int(seconds))

    runners = list(compiled.values())
    result = race(runners, engine, threads, tolerance=tolerance, seconds=seconds, tell=tell_round)
    against = [Measurement.of(result, index, 0, engine, threads, inputs) for index in range(len(runners))]
    shared = against[0].to_data()
    rows = []
    for index, (name, runner) in enumerate(compiled.items()):
        one = against[index] if index else None
        row: dict[str, Any] = {
            "name": name,
            "ms": result.medians[index],
            "ratio": one.ratio if one else None,
            "interval": list(one.interval) if one else None,
            "widened": list(one.widened) if one else None,
            "verdict": one.verdict if one else None,
        }
        if memory:
            tell(f"memory of {name}", index, len(runners))
            row["peak_mib"] = _peak(engine, runner, modules[name], inputs, threads)
        if per_layer:
            tell(f"layers of {name}", index, len(runners))
            with engine.running(threads):
                row["layers"] = _layers(runner)
        rows.append(row)
    kept = (
        "engine",
        "version",
        "precision",
        "threads",
        "processor",
        "rounds",
        "stopped",
        "control",
        "control_interval",
        "noise",
    )
    return {**{key: shared[key] for key in kept}, "results": rows}


def _check_recording(networks: Sequence[str]) -> None:
    """Refuse to record what is no comparison of a bundle with an original."""
    first, *others = (is_folder(Path(source).expanduser()) for source in networks)
    if first or not any(others):
        raise typer.BadParameter(
            "takes the original first, an architecture, and then the bundles to keep it in", param_hint="--record"
        )


def _check_original(networks: Sequence[str], original: nn.Module) -> None:
    """Refuse to record against what a bundle was not made from.

    Raises:
        BundleError: it was made from another architecture.
    """
    from ..bundle.recipe import read_recipe
    from ..graph.call_spec import CallSpec
    from ..reproduce.replay import check_architecture

    for folder in (Path(source).expanduser() for source in networks[1:]):
        if is_folder(folder):
            recipe = read_recipe(folder)
            check_architecture(recipe["architecture"], original, CallSpec.from_data(recipe["inputs"]).example())


def _other_weights(networks: Sequence[str]) -> str:
    """A note where bundles were made from originals with different weights, of which times are independent."""
    from ..bundle.original import recorded, short
    from ..bundle.recipe import read_recipe

    folders = {source: Path(source).expanduser() for source in networks}
    known = {source: recorded(read_recipe(folder)) for source, folder in folders.items() if is_folder(folder)}
    made_from = {source: digest for source, digest in known.items() if digest}
    if len(set(made_from.values())) < 2:
        return ""
    said = ", ".join(f"{source}: {short(digest)}" for source, digest in made_from.items())
    return f"note: made from originals with different weights (sha256 {said}); times do not depend on them"


def _record(networks: Sequence[str], measured: Sequence[dict[str, Any]], inputs: Sequence[Tensor]) -> Iterator[str]:
    """Put the times of the bundles among the networks, against the first network, into their reports; yields these."""
    from ..bundle.updating import record

    for index, source in enumerate(networks):
        folder = Path(source).expanduser()
        if index and is_folder(folder):
            record([_recorded(engine, index, inputs) for engine in measured], folder)
            yield source


def _recorded(engine: dict[str, Any], index: int, inputs: Sequence[Tensor]) -> dict[str, Any]:
    first, row = engine["results"][0], engine["results"][index]
    return {
        **{key: engine[key] for key in ("engine", "version", "precision", "processor", "threads")},
        "input": [list(x.shape) for x in inputs],
        "original_ms": first["ms"],
        "rewritten_ms": row["ms"],
        **{key: row[key] for key in ("ratio", "interval", "verdict")},
        "control": engine["control_interval"],
    }


def _peak(
    engine: Engine, compiled: Compiled, module: nn.Module, inputs: Sequence[Tensor], threads: int
) -> float | None:
    from ..runtime import peak_memory

    packed = compiled.packed if compiled.packed is not None else engine.pack(module, inputs)
    return peak_memory(packed, inputs, engine, threads)


def _layers(compiled: Compiled) -> list[dict[str, Any]] | None:
    """Times by layer, the slowest first; under None what the engine cannot say where it belongs."""
    operators = compiled.profile()
    if operators is None:
        return None
    layers: dict[str | None, dict[str, Any]] = {}
    for operator in operators:
        entry = layers.setdefault(operator.layer, {"layer": operator.layer, "ms": 0.0, "operators": []})
        entry["ms"] += operator.ms or 0.0
        entry["operators"].append({"name": operator.name, "kind": operator.kind, "ms": operator.ms})
    return sorted(layers.values(), key=lambda entry: -entry["ms"])


def _load(source: str, arguments: list[str] | None) -> tuple[nn.Module, CallSpec | None]:
    """A network, and the call that a bundle was made for; none of an architecture."""
    folder = Path(source).expanduser()
    if not is_folder(folder):
        return options.load_model(source, arguments, None, None, None)[0], None
    from ..bundle import load
    from ..bundle.recipe import read_recipe
    from ..graph.call_spec import CallSpec

    return load(folder).eval(), CallSpec.from_data(read_recipe(folder)["inputs"])


def _example(loaded: tuple[nn.Module, CallSpec | None], inputs: Make | None) -> tuple[Tensor, ...]:
    """The tensors that the networks are run on."""
    from ..graph.call_spec import example_call, tensors_by_position

    module, recorded = loaded
    call = example_call(module, recorded if inputs is None else inputs(module))
    return tensors_by_position(module, call.example())


def _labels(sources: Sequence[str]) -> list[str]:
    """Short names: a folder's, a class's; as given where another has that, numbered where a source comes again."""
    from ..report.reading import distinct

    return distinct(sources, {source: source.rstrip("/").rpartition("/")[2].rpartition(":")[2] for source in sources})
