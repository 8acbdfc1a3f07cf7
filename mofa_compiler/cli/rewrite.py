"""`mofa rewrite`: carry out a roadmap and save the result."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..base.errors import BundleError, DataError, VerificationError, one_line
from . import completion, options

if TYPE_CHECKING:
    from torch import nn

    from ..data import CalibrationImages
    from ..graph.call_spec import ExampleInputs


def rewrite(
    target: options.Target,
    arguments: options.Arguments = None,
    checkpoint: options.Checkpoint = None,
    key: options.Key = None,
    strip_prefix: options.StripPrefix = None,
    roadmap: Annotated[
        str,
        typer.Option(
            metavar="NAME|FILE",
            help="A roadmap's name (see `mofa roadmaps`) or a TOML file.",
            autocompletion=completion.roadmaps,
        ),
    ] = "mofa",
    inputs: options.Inputs = None,
    engine: Annotated[
        str | None,
        typer.Option(
            metavar="ENGINE",
            help="Decide layer by layer by measuring on this engine (see `mofa engines`): needs time.",
            autocompletion=completion.engines,
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Threads that it may use.", show_default="1")
    ] = None,
    max_loss: Annotated[
        str | None,
        typer.Option(
            metavar="DB",
            help="Stop rewriting before the calibrated network is so much worse than the original, such as 0.5dB; "
            "needs --engine, --calibrate and --degrade.",
        ),
    ] = None,
    calibrate: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|FILE.npy|synthetic",
            help="Fit the rewritten layers on images: a folder, network inputs (N, C, H, W), or generated ones.",
        ),
    ] = None,
    degrade: options.Degrade = None,
    crops: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Crops to calibrate on.", show_default="64")
    ] = None,
    crop_size: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Their side in pixels.", show_default="128, less for a smaller --input"),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Of their places and noise.", show_default="0")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where to save the rewritten network.")] = None,
    overwrite: options.Overwrite = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing; report what would change.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Report every edit and every path.")] = False,
    quiet: options.Quiet = False,
    compare: options.Compare = True,
    debug: options.Debug = False,
) -> None:
    """Rewrite a network by a roadmap and save it.

    Saved is a bundle: a folder with source, weights and report. The report also goes to stdout: what every pass
    changed, what it refused and why, and how far the output moved.

    \b
    mofa rewrite arch.py:Net --arg width=16 --checkpoint net.pth --out net-mofa
    mofa rewrite models.unet:UNet --roadmap my.toml --input 1x4x512x512 --dry-run
    mofa rewrite arch.py:Net --calibrate photos/ --degrade gaussian:25 --out out
    mofa rewrite arch.py:Net --checkpoint net.pth --engine xnnpack --out net-phone

    \b
    Exit codes:
      0    done, also where there was nothing to rewrite
      1    an error in the input, a network that cannot be saved (with --dry-run
           after the report), or a pass less exact than it says, in one line
      2    wrong usage
      130  interrupted
    """
    if out is None and not dry_run:
        raise typer.BadParameter("a folder is needed, unless with --dry-run", param_hint="--out")
    options.refuse_with_quiet(quiet, {"--json": as_json, "--verbose": verbose})
    given = options.image_settings("--calibrate", calibrate, degrade, crops, crop_size, seed)
    if engine is None and (threads is not None or max_loss is not None):
        raise typer.BadParameter("needs --engine", param_hint="--threads" if threads is not None else "--max-loss")
    if max_loss is not None and (calibrate is None or degrade is None):
        raise typer.BadParameter("needs --calibrate and --degrade, to know the clean images", param_hint="--max-loss")
    loss = None if max_loss is None else _decibels(max_loss)
    given_inputs = options.parse_inputs(inputs)
    destination = None if dry_run or out is None else out.expanduser()
    if destination is not None:
        _check_destination(destination, overwrite)

    from ..base.words import UNTRAINED
    from ..bundle.files import save
    from ..bundle.obstacles import obstacles, sentence
    from ..compiler import apply
    from ..data import parse_degradation
    from ..report.data import reported
    from ..rewriting.roadmap import Roadmap

    plan = Roadmap.load(roadmap)
    if engine is not None:
        plan = plan.with_target(engine, threads or 1)
    if degrade is not None:
        given["degradation"] = parse_degradation(degrade)
    with options.prints_to_stderr(), options.progress_bar(quiet) as phase:
        model, description = options.load_model(target, arguments, checkpoint, key, strip_prefix)
        if not quiet:
            _tell(f"weights: {description}" if description else f"warning: no --checkpoint: {UNTRAINED}")
        example = options.example_inputs(model, given_inputs)
        calibration = None if calibrate is None else _calibration(model, example, calibrate, given)
        if calibration is not None and not quiet:
            _tell(f"calibration: {calibration}")
        saving, tell = destination is not None, phase("rewriting")
        result = apply(
            model,
            plan,
            example,
            calibration,
            max_loss=loss,
            to_save=saving,
            compare=compare,
            checkpoint=description or "",
            progress=tell,
        )
        result.verify(progress=phase("comparing outputs"))
        made = None if quiet else reported(result.record)
    if made is not None and as_json:
        print(json.dumps(made[0].to_data(), indent=2, ensure_ascii=False))
    elif made is not None:
        from ..report import content, document

        document.show(content.for_screen(made[0], verbose), options.stdout_console(), verbose)
    sys.stdout.flush()
    for verdict in result.verdicts:
        if verdict.problem:
            raise VerificationError(f"{verdict.problem}; nothing was saved", code="not-exact")
    if destination is None:
        if found := obstacles(result.rewritten.program):
            raise BundleError(f"without --dry-run nothing would be saved: {sentence(found)}", code="no-source")
        return
    with options.progress_bar(quiet) as phase:
        saved = save(result.record, destination, overwrite=overwrite, progress=phase("saving"), reported=made)
    if not quiet:
        _tell(f"saved to {saved}")


def _calibration(model: nn.Module, example: ExampleInputs, source: str, settings: dict[str, Any]) -> CalibrationImages:
    """The images to calibrate on, of which the network took the first.

    Raises:
        DataError: they cannot be read, or the network does not take them.
    """
    import torch

    from ..data import CalibrationImages
    from ..graph.call_spec import example_call, specs

    call = specs(example_call(model, example))
    taken = call.tensors
    if len(taken) != 1 or len(taken[0].shape) != 4 or call.args != taken:
        raise DataError(
            f"--calibrate is for networks of one image, this takes {call}: call apply(calibration=...)",
            code="wrong-input",
        )
    _, channels, height, width = taken[0].shape
    images = CalibrationImages(source, **{"channels": channels, "size": min(128, height, width), **settings})
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    first = next(iter(images))[:1]
    try:
        with torch.no_grad():
            model(first.to(like))
    except Exception as error:
        shape = "x".join(map(str, first.shape))
        remedy = "choose another --crop-size, a multiple of 32 say" if images.description["size"] else "crop the inputs"
        raise DataError(
            f"the network does not take {shape} from {source} ({one_line(error)}): {remedy}", code="wrong-input"
        ) from error
    return images


def _check_destination(folder: Path, overwrite: bool) -> None:
    """Refuse before the work what saving would refuse after it.

    Raises:
        BundleError: something is there that may not be replaced, or there can be no folder.
    """
    from ..bundle.files import check_destination

    check_destination(folder, overwrite)
    above = next(parent for parent in folder.absolute().parents if parent.exists())
    if not above.is_dir():
        raise BundleError(f"cannot make {folder}: {above} is a file", code="unwritable")
    if not os.access(above, os.W_OK | os.X_OK):
        raise BundleError(f"cannot make {folder}: no permission to write to {above}", code="unwritable")


def _decibels(text: str) -> float:
    """`0.5dB` or `0.5` as a number; anything else is a usage error."""
    try:
        value = float(text.lower().removesuffix("db"))
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise typer.BadParameter(f"{text!r} is not a loss such as 0.5dB", param_hint="--max-loss")
    return value


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
