"""`mofa plot`: figures of reports."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options
from .sources import Targets, is_target, short_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure as MatplotlibFigure


class Figure(StrEnum):
    """What can be drawn."""

    FLOPS = "flops"
    ROADMAP = "roadmap"
    UNET = "unet"
    PARETO = "pareto"


class Axis(StrEnum):
    """What a network can be drawn by in a pareto plot."""

    PARAMETERS = "parameters"
    MACS = "macs"
    MS = "ms"
    PSNR = "psnr"
    ERROR = "error"


def plot(
    figure: Annotated[Figure, typer.Argument(metavar="FIGURE", help="flops, roadmap, unet or pareto.")],
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="BUNDLE|TARGET",
            help="Bundles, report.json files, or architectures (package.module:Class, file.py:Class); pareto takes "
            "several.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="A .svg, .png or .pdf; what is there is replaced.")],
    x: Annotated[
        Axis | None,
        typer.Option(metavar="AXIS", help="Of pareto: parameters, macs, ms, psnr or error.", show_default="ms or macs"),
    ] = None,
    y: Annotated[
        Axis | None, typer.Option(metavar="AXIS", help="The same.", show_default="psnr, error or parameters")
    ] = None,
    arguments: options.Arguments = None,
    checkpoint: options.Checkpoint = None,
    key: options.Key = None,
    strip_prefix: options.StripPrefix = None,
    inputs: options.ArchitectureInputs = None,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Draw a figure of a network, for a paper or a README.

    \b
    flops    cost by stage, before and after, and which stages are cheap
    roadmap  what each pass added or saved, and the PSNR
    unet     the network as a U, coloured by what happened to its stages
    pareto   several networks, one number of them against another

    flops and unet also draw what `mofa analyze --json` printed.

    \b
    mofa plot roadmap net-mofa --out roadmap.pdf
    mofa plot unet net-mofa --out unet.svg
    mofa plot pareto net-a net-b net-c --x macs --y error --out front.png
    mofa plot unet arch.py:Net --out unet.svg
    """
    several = figure is Figure.PARETO
    if not several and len(sources) > 1:
        raise typer.BadParameter(f"draws one report, not {len(sources)}", param_hint=f"{figure}")
    for option, axis in (("--x", x), ("--y", y)):
        if axis is not None and not several:
            raise typer.BadParameter("is for pareto", param_hint=option)

    targets = Targets(arguments, checkpoint, key, strip_prefix, options.parse_inputs(inputs), quiet)
    targets.check(sources)

    from ..report import figures
    from ..report.reading import check_output

    target, files = out.expanduser(), [Path(source).expanduser() for source in sources if not is_target(source)]
    options.check_figure(target, "--out")
    check_output(target, files)

    def drawn() -> MatplotlibFigure:
        if figure is Figure.PARETO:
            return figures.pareto(targets.reports(sources), short_names(sources), x, y)
        if figure is Figure.ROADMAP:
            return figures.roadmap(*targets.reports(sources))
        return (figures.unet if figure is Figure.UNET else figures.flops)(targets.drawn(sources[0]))

    figures.save(drawn, target)
    if not quiet:
        print(f"saved to {out}", file=sys.stderr)
