"""`mofa compare`: bundles and architectures side by side."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from . import options
from .sources import Targets, is_target, short_names


class Format(StrEnum):
    """How a comparison is written."""

    TERMINAL = "terminal"
    MARKDOWN = "markdown"
    HTML = "html"
    JSON = "json"


def compare(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="A B...",
            help="Bundles, their report.json files, or architectures (package.module:Class, file.py:Class); two or "
            "more.",
        ),
    ],
    output_format: Annotated[
        Format, typer.Option("--format", metavar="FORMAT", help="terminal, markdown, html or json.")
    ] = Format.TERMINAL,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write there; what is there is replaced.", show_default="standard output"),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show every layer that differs.")] = False,
    arguments: options.Arguments = None,
    checkpoint: options.Checkpoint = None,
    key: options.Key = None,
    strip_prefix: options.StripPrefix = None,
    inputs: options.ArchitectureInputs = None,
    debug: options.Debug = False,
) -> None:
    """Compare networks: their sizes, times, quality and layers.

    An architecture is taken as it is, as a bundle that no pass changed would be. Each one's layers are compared with
    those of the first, by path. Times are those that are in the bundles: `mofa measure A B` takes new ones. HTML is one
    file that loads nothing.

    \b
    mofa compare net-a net-b
    mofa compare net-a net-b net-c --format markdown
    mofa compare net-a net-b --format html --out comparison.html
    mofa compare arch.py:Net net-a
    """
    if len(sources) < 2:
        raise typer.BadParameter("a comparison needs at least two networks", param_hint="A B")
    if out is not None and output_format is Format.TERMINAL:
        raise typer.BadParameter("needs --format markdown, html or json", param_hint="--out")
    if verbose and output_format is not Format.TERMINAL:
        raise typer.BadParameter(f"--format {output_format} shows all of it anyway", param_hint="--verbose")

    targets = Targets(arguments, checkpoint, key, strip_prefix, options.parse_inputs(inputs))
    targets.check(sources)

    from ..base.atomic_files import replaced
    from ..report import comparison, document
    from ..report.reading import check_output

    files = [Path(source).expanduser() for source in sources if not is_target(source)]
    target = None if out is None else out.expanduser()
    if target is not None:
        check_output(target, files)
    reports = targets.reports(sources)
    digests = ["" if is_target(source) else _digest(Path(source).expanduser()) for source in sources]
    data = comparison.compare(reports, short_names(sources), digests)
    if output_format is Format.TERMINAL:
        console = options.stdout_console()
        with console.capture() as printed:  # all of it, or an error alone
            document.show(comparison.document(data, every=verbose), console, verbose)
        content = printed.get()
    elif output_format is Format.JSON:
        content = json.dumps(data.to_data(), indent=2, ensure_ascii=False) + "\n"
    elif output_format is Format.MARKDOWN:
        content = document.markdown(comparison.document(data))
    else:
        from ..report.document.html import page

        title = f"{', '.join(one.name for one in data.networks)} compared"
        content = page(comparison.document(data, reports=reports), title)
    if target is None:
        sys.stdout.write(content)
        return
    with replaced(target) as handle:
        handle.write(content)
    print(f"saved to {out}", file=sys.stderr)


def _digest(source: Path) -> str:
    """Of the weights of the original that a report's bundle was made from; empty for a report alone."""
    from ..bundle.original import recorded
    from ..bundle.recipe import FILE, read_recipe
    from ..report.reading import report_file

    folder = report_file(source).absolute().parent
    return recorded(read_recipe(folder)) if (folder / FILE).is_file() else ""
