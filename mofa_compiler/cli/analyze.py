"""`mofa analyze`: where a network's computation lies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from . import completion, options


def analyze(
    target: options.Target,
    arguments: options.Arguments = None,
    checkpoint: options.Checkpoint = None,
    key: options.Key = None,
    strip_prefix: options.StripPrefix = None,
    inputs: options.Inputs = None,
    roadmap: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Show also what this roadmap makes of each stage.",
            autocompletion=completion.roadmaps,
        ),
    ] = None,
    layers: Annotated[bool, typer.Option("--layers", help="List the convolutions of every stage.")] = False,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the chart to a .png, .svg or .pdf.")] = None,
    draw: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the network as a U to a .png, .svg or .pdf.")
    ] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Draw the network as a U, with the cost of each stage.

    Levels of resolution go downward, and long skip connections across. As in the paper's Figure 4, the bars are MACs
    estimated as if every convolution were a vanilla one, which decides what is cheap; the column MACs holds the true
    ones.

    \b
    mofa analyze arch.py:Net --input 1x3x512x512
    mofa analyze models.unet:UNet --draw unet.svg
    mofa analyze models.unet:UNet --roadmap mofa --plot chart.svg
    """
    given_inputs = options.parse_inputs(inputs)
    options.refuse_with_quiet(quiet, {"--json": as_json, "--layers": layers})
    for file, option in ((plot, "--plot"), (draw, "--draw")):
        if file is not None:
            options.check_figure(file, option)

    from ..analysis.anatomy import infer
    from ..analysis.network import Network
    from ..compiler import apply
    from ..frontend import capture
    from ..report.distribution import distribution, print_distribution
    from ..rewriting.roadmap import Roadmap

    plan = Roadmap.load(roadmap) if roadmap is not None else None
    with options.prints_to_stderr(), options.progress_bar(quiet) as phase:
        model, _ = options.load_model(target, arguments, checkpoint, key, strip_prefix)
        example = options.example_inputs(model, given_inputs)
        if plan is None:
            program = capture(model, example)
            data = distribution(Network(program, infer(program)), obstacles=options.obstacles_data(program))
        else:
            result = apply(model, plan, example, progress=phase("rewriting"))
            data = distribution(
                result.original, result.rewritten, plan.name, options.obstacles_data(result.rewritten.program)
            )
    if plot is not None or draw is not None:
        from ..report.figures import flops, save, unet

        if plot is not None:
            save(lambda: flops(data), plot)
        if draw is not None:
            save(lambda: unet(data), draw)
    if as_json:
        print(json.dumps(data.to_data(), indent=2, ensure_ascii=False))
    elif not quiet:
        print_distribution(data, options.stdout_console(), layers)
