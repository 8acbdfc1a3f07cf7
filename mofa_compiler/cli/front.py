"""`mofa front`: a network priced between exact and as fast as it goes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import deciding, options

if TYPE_CHECKING:
    from ..result.quality import Bound


def front(
    target: options.Target,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where to save the bundles and the report.")],
    arguments: options.Arguments = None,
    checkpoint: options.Checkpoint = None,
    key: options.Key = None,
    strip_prefix: options.StripPrefix = None,
    roadmap: deciding.RoadmapOption = "mofa",
    inputs: options.Inputs = None,
    engine: deciding.EngineOption = None,
    threads: deciding.Threads = None,
    precision: options.Precision = None,
    losses: Annotated[
        str | None,
        typer.Option(
            metavar="DB,DB...",
            help="Bounds: dB of PSNR against clean images that may be lost; needs --degrade.",
            show_default="0.05,0.1,0.2,0.5,1 with --degrade",
        ),
    ] = None,
    psnrs: Annotated[
        str | None,
        typer.Option(
            "--psnrs-to-original",
            metavar="DB,DB...",
            help="Bounds: how near to the original's the output has to be.",
            show_default="55,50,45,40,35 for images",
        ),
    ] = None,
    agreements: Annotated[
        str | None,
        typer.Option(
            metavar="PERCENT,...",
            help="Bounds: how many labels have to be the original's, for segmentation.",
            show_default="99.9,99.5,99,98,95 for labels",
        ),
    ] = None,
    calibrate: deciding.Calibrate = None,
    degrade: options.Degrade = None,
    crops: deciding.Crops = None,
    crop_size: deciding.CropSize = None,
    seed: deciding.Seed = None,
    beside: Annotated[
        list[Path] | None,
        typer.Option("--with", metavar="BUNDLE", help="Another bundle, to be measured beside them; repeatable."),
    ] = None,
    minutes: deciding.Minutes = None,
    recover_minutes: Annotated[
        float, typer.Option(min=0, metavar="N", help="Train every network on for so many minutes.")
    ] = 0,
    every: Annotated[bool, typer.Option("--all", help="Show also what another one beats in time and quality.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another front that is there.")] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    compare: options.Compare = True,
    debug: options.Debug = False,
) -> None:
    """Price a network between exact and as fast as it goes.

    For every bound on what may be lost, the fastest network within it is found by measurement and saved as a bundle.
    All are timed in one race, and their quality is measured on inputs that nothing was fitted to. The folder also holds
    the table (front.md), a page with a picture (front.html) and both as data (front.json). An interrupted front goes
    on where it was.

    \b
    mofa front arch.py:Net --checkpoint net.pth --calibrate photos/ \\
      --degrade gaussian:25 --engine xnnpack --out front
    mofa front arch.py:Net --checkpoint net.pth --losses 0.1,0.3 --degrade \\
      gaussian:25 --recover-minutes 5 --out front
    mofa front seg.py:UNet --checkpoint seg.pth --agreements 99.5,99 \\
      --calibrate inputs.npy --out front

    \b
    Exit codes:
      0    done
      1    an error in the input, or a network that cannot be saved, in one line
      2    wrong usage
      130  interrupted
    """
    options.refuse_with_quiet(quiet, {"--json": as_json, "--all": every})
    bounds = _bounds({"--max-loss": losses, "--min-psnr-to-original": psnrs, "--min-agreement": agreements})
    calibrate = calibrate or deciding.SYNTHETIC
    if calibrate == deciding.NONE:
        raise typer.BadParameter("quality is measured on inputs", param_hint="--calibrate")
    given = options.image_settings("--calibrate", calibrate, degrade, crops, crop_size, seed)
    if losses is not None and degrade is None:
        raise typer.BadParameter("needs --degrade, to know the clean images", param_hint="--losses")
    given_inputs = options.parse_inputs(inputs)

    from ..frontier import PAGE
    from ..frontier import front as made
    from ..rewriting.roadmap import Roadmap

    plan = deciding.target(Roadmap.load(roadmap), engine, threads, precision)
    with options.prints_to_stderr(), options.progress_bar(quiet) as phase:
        model, description = options.load_model(target, arguments, checkpoint, key, strip_prefix)
        if not quiet:
            deciding.tell_weights(description)
        example = options.example_inputs(model, given_inputs)
        calibration = deciding.calibration(model, example, calibrate, given)
        data = made(
            model,
            plan,
            example,
            calibration,
            out=out,
            bounds=bounds,
            beside=beside or (),
            minutes=minutes,
            recover_minutes=recover_minutes,
            overwrite=overwrite,
            compare=compare,
            checkpoint=description or "",
            progress=phase("pricing"),
        )
    if as_json:
        print(json.dumps(data.to_data(), indent=2, ensure_ascii=False))
    elif not quiet:
        from ..report import document
        from ..report import front as report

        document.show(report.document(data, every=every), options.stdout_console())
    sys.stdout.flush()
    if not quiet:
        print(f"saved to {out}, with a picture in {out / PAGE}", file=sys.stderr)


def _bounds(given: dict[str, str | None]) -> list[Bound]:
    """The bounds of the one option that has any; two of them, or one that makes no sense, are a usage error."""
    names = {
        "--max-loss": "--losses",
        "--min-psnr-to-original": "--psnrs-to-original",
        "--min-agreement": "--agreements",
    }
    options = {name: text for name, text in given.items() if text is not None}
    if len(options) > 1:
        first, second = (names[name] for name in list(options)[:2])
        raise typer.BadParameter(f"is a second kind of bound beside {first}", param_hint=second)
    return [deciding.parsed(name, one, names[name]) for name, text in options.items() for one in text.split(",")]
