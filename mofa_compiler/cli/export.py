"""`mofa export`: a bundle as the file that an engine loads."""

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

from . import completion, options


def export(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A folder that `mofa rewrite --out` wrote.")],
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
        typer.Option(metavar="FILE", help="The file to write.", show_default="BUNDLE.onnx, .pt2, .pte, .xml or .pt"),
    ] = None,
    dynamic: Annotated[
        bool, typer.Option("--dynamic", help="Take other heights, widths and batches than the example's, too.")
    ] = False,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="SHAPE",
            help="Shape of an input, such as 1x3x256x256; one for each input.",
            show_default="what the bundle was made for",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
    debug: options.Debug = False,
) -> None:
    """Write a bundle as the file that an engine loads.

    The file is loaded again and compared with the bundle, with --dynamic at two sizes, before it is put in place. What
    is printed: its operators, its size, its error, and what the engine is known to run slowly. Where the exporter does
    not take the network, the error names the layer. This runs the bundle's model.py.

    \b
    mofa export net-mofa --to onnx --dynamic
    mofa export net-mofa --to executorch --input 1x3x512x512 --out phone.pte

    \b
    Exit codes:
      0    done
      1    an error in the input, in one line on stderr
      2    wrong usage
      130  interrupted
    """
    shapes = [options.parse_shape(shape) for shape in inputs or ()]
    if quiet and as_json:
        raise typer.BadParameter("contradicts --quiet", param_hint="--json")

    with (
        contextlib.nullcontext() if debug else _hushed(),
        options.prints_to_stderr(),
        options.progress_bar(quiet) as bar,
    ):
        tell = bar("exporting")
        tell("loading", 0, 4)
        from ..bundle import load
        from ..export import export as write

        example = options.example_inputs(load(bundle.expanduser()), shapes) if shapes else None
        done = write(bundle, to, out, dynamic=dynamic, inputs=example, overwrite=overwrite, progress=tell)
    if as_json:
        print(json.dumps(done.to_data(), indent=2, ensure_ascii=False))
    elif not quiet:
        from ..report.exported import print_exported

        print_exported(done.to_data(), options.stdout_console())
        options.print_run([str(bundle)])


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
