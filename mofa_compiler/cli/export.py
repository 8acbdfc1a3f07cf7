"""`mofa export`: a bundle or an architecture as the file that an engine loads."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from . import completion, deciding, options
from .sources import Targets, is_target


def export(
    source: Annotated[
        str,
        typer.Argument(
            metavar="BUNDLE|TARGET",
            help="A folder that `mofa rewrite --out` wrote, or an architecture: package.module:Class or file.py:Class.",
        ),
    ],
    to: Annotated[
        str,
        typer.Option(
            metavar="FORMAT",
            help="onnx, pt2, executorch, openvino or torchscript.",
            autocompletion=completion.export_formats,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The file to write.",
            show_default="BUNDLE.onnx, .pt2, .pte, .xml or .pt; of an architecture, its class's name with that ending",
        ),
    ] = None,
    arguments: options.Arguments = None,
    checkpoint: options.Checkpoint = None,
    key: options.Key = None,
    strip_prefix: options.StripPrefix = None,
    dynamic: Annotated[
        bool, typer.Option("--dynamic", help="Take other heights, widths and batches than the example's, too.")
    ] = False,
    inputs: Annotated[
        list[str] | None, options.shapes("what the bundle was made for; of an architecture 1x3x256x256")
    ] = None,
    precision: options.Precision = None,
    calibrate: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|FILE|synthetic",
            help="For int8: inputs whose values tell the ranges of all others, as for `mofa rewrite`.",
        ),
    ] = None,
    degrade: options.Degrade = None,
    floating: Annotated[
        list[str] | None,
        typer.Option(
            "--float",
            metavar="LAYER",
            help="For int8: a layer that stays in float; repeatable.",
            show_default="those found when the bundle was decided in int8",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Write a network as the file that an engine loads.

    The file is loaded again and compared with the network, with --dynamic at two sizes, before it is put in place. What
    is printed: its operators, its size, its error, and what the engine is known to run slowly. Where the exporter does
    not take the network, the error names the layer. This runs the bundle's model.py, or the architecture as it is.

    \b
    mofa export net-mofa --to onnx --dynamic
    mofa export net-mofa --to onnx --precision int8 --calibrate photos/ \\
      --degrade gaussian:25
    mofa export net-mofa --to executorch --input 1x3x512x512 --out phone.pte
    mofa export arch.py:Net --checkpoint net.pth --to onnx --out original.onnx
    """
    given_inputs = options.parse_inputs(inputs)
    options.refuse_with_quiet(quiet, {"--json": as_json})
    for name, value in (("--calibrate", calibrate), ("--float", floating)):
        if value is not None and precision != "int8":
            raise typer.BadParameter("is for --precision int8", param_hint=name)
    given = options.image_settings("--calibrate", calibrate, degrade, None, None)
    targets = Targets(arguments, checkpoint, key, strip_prefix, None, quiet)
    targets.check([source])

    with (
        contextlib.nullcontext() if debug else _hushed(),
        options.prints_to_stderr(),
        options.progress_bar(quiet) as bar,
    ):
        tell = bar("exporting")
        tell("loading", 0, 4)
        from ..bundle import load
        from ..bundle.recipe import read_recipe
        from ..export import export as write
        from ..export.exporting import named_after
        from ..graph.call_spec import CallSpec

        if is_target(source):
            network, description = targets.model(source)
            if description is None and not quiet:
                print("warning: no --checkpoint: the weights are those that it starts with", file=sys.stderr)
            out = out or named_after(network, to)
            example = like = options.example_inputs(network, given_inputs)
        else:
            folder = Path(source).expanduser()
            network = load(folder)
            example = options.example_inputs(network, given_inputs) if given_inputs else None
            like = CallSpec.from_data(read_recipe(folder)["inputs"]) if example is None else example
        calibration = None if calibrate is None else deciding.calibration(network, like, calibrate, given)
        done = write(
            network if is_target(source) else folder,
            to,
            out,
            dynamic=dynamic,
            inputs=example,
            precision=precision or "fp32",
            calibration=calibration,
            floating=floating,
            overwrite=overwrite,
            progress=tell,
        )
    if as_json:
        print(json.dumps(done.to_data(), indent=2, ensure_ascii=False))
    elif not quiet:
        from ..report.printing.exported import print_exported

        print_exported(done.to_data(), options.stdout_console())
        if not is_target(source):
            options.print_run([source])


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Nothing that libraries write past Python to the process's own stdout and stderr is seen.

    Python's streams, where they lead there, lead to the same place as before.
    """
    streams = {name: getattr(sys, name) for name in ("stdout", "stderr")}
    kept = {1: os.dup(1), 2: os.dup(2)}
    try:
        with tempfile.TemporaryFile() as nowhere:
            for name, stream in streams.items():
                stream.flush()
                if (number := _descriptor(stream)) in kept:
                    again = open(os.dup(kept[number]), "w", encoding=stream.encoding, errors="replace", buffering=1)  # noqa: SIM115
                    setattr(sys, name, again)
            for number in kept:
                os.dup2(nowhere.fileno(), number)
            yield
    finally:
        for name, stream in streams.items():
            getattr(sys, name).flush()
            setattr(sys, name, stream)
        for number, copied in kept.items():
            os.dup2(copied, number)
            os.close(copied)


def _descriptor(stream: object) -> int:
    try:
        return int(stream.fileno())  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return -1
