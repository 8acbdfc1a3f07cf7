"""`mofa plot`: figures of reports."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options

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
        list[Path], typer.Argument(metavar="BUNDLE", help="Bundles, or report.json files; pareto takes several.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="A .svg, .png or .pdf; what is there is replaced.")],
    x: Annotated[
        Axis | None,
        typer.Option(metavar="AXIS", help="Of pareto: parameters, macs, ms, psnr or error.", show_default="ms or macs"),
    ] = None,
    y: Annotated[
        Axis | None, typer.Option(metavar="AXIS", help="The same.", show_default="psnr, error or parameters")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
    debug: options.Debug = False,
) -> None:
    """Draw a figure of a bundle, for a paper or a README.

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

    \b
    Exit codes:
      0    done
      1    an error in the input, in one line on stderr
      2    wrong usage
      130  interrupted
    """
    several = figure is Figure.PARETO
    if not several and len(sources) > 1:
        raise typer.BadParameter(f"draws one report, not {len(sources)}", param_hint=f"{figure}")
    for option, axis in (("--x", x), ("--y", y)):
        if axis is not None and not several:
            raise typer.BadParameter("is for pareto", param_hint=option)

    from ..report import figures
    from ..report.reading import check_output, naming_damage, read_report, short_names

    target, sources = out.expanduser(), [source.expanduser() for source in sources]
    options.check_figure(target, "--out")
    check_output(target, sources)
    also = figure in (Figure.FLOPS, Figure.UNET)
    reports = [read_report(source, or_distribution=also) for source in sources]
    draw = {Figure.FLOPS: figures.flops, Figure.ROADMAP: figures.roadmap, Figure.UNET: figures.unet}

    def drawn() -> MatplotlibFigure:
        with naming_damage(sources, "figure"):
            if several:
                return figures.pareto(reports, short_names([str(source) for source in sources]), x, y)
            return draw[figure](reports[0])

    figures.save(drawn, target)
    if not quiet:
        print(f"saved to {out}", file=sys.stderr)
