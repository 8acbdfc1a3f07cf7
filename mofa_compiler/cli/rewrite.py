"""`mofa rewrite`: carry out a roadmap and save the result."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..base.errors import BundleError, VerificationError
from . import deciding, judging, options


def rewrite(
    target: options.Target,
    arguments: options.Arguments = None,
    checkpoint: options.Checkpoint = None,
    key: options.Key = None,
    strip_prefix: options.StripPrefix = None,
    roadmap: deciding.RoadmapOption = "mofa",
    inputs: options.Inputs = None,
    engine: deciding.EngineOption = None,
    threads: deciding.Threads = None,
    precision: options.Precision = None,
    max_loss: deciding.MaxLoss = None,
    min_psnr: deciding.MinPsnr = None,
    min_agreement: deciding.MinAgreement = None,
    minutes: deciding.Minutes = None,
    as_told: Annotated[
        bool, typer.Option("--as-told", help="Carry the roadmap out as it stands, and say whether that was worth it.")
    ] = False,
    calibrate: deciding.Calibrate = None,
    degrade: options.Degrade = None,
    crops: deciding.Crops = None,
    crop_size: deciding.CropSize = None,
    seed: deciding.Seed = None,
    evaluate: judging.Eval = None,
    accept_loss: judging.AcceptLoss = False,
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

    With a checkpoint, what the roadmap offers is decided by measurement, on held-out images and within a bound. Without
    one, or with --as-told, the roadmap is carried out as it stands.

    Saved is a bundle: a folder with source, weights and report. The report also goes to stdout: what was traded for
    what, what every pass changed, what it refused and why, and how far the output moved.

    \b
    mofa rewrite arch.py:Net --arg width=16 --checkpoint net.pth --out net-mofa
    mofa rewrite arch.py:Net --checkpoint net.pth --engine xnnpack \\
      --calibrate photos/ --degrade gaussian:25 --max-loss 0.1dB --out net-phone
    mofa rewrite arch.py:Net --checkpoint net.pth --as-told --out net-told
    mofa rewrite models.unet:UNet --roadmap my.toml --input 1x4x512x512 --dry-run

    \b
    Exit codes:
      0    done, also where there was nothing to rewrite
      1    an error in the input, a network that cannot be saved (with --dry-run
           after the report), a pass less exact than it says, or trained weights
           that lost more than is accepted (not with --dry-run), in one line
      2    wrong usage
      130  interrupted
    """
    if out is None and not dry_run:
        raise typer.BadParameter("a folder is needed, unless with --dry-run", param_hint="--out")
    options.refuse_with_quiet(quiet, {"--json": as_json, "--verbose": verbose})
    if calibrate == deciding.NONE and checkpoint is not None and not as_told:
        raise typer.BadParameter(
            "trained weights are fitted and judged on inputs, unless --as-told", param_hint="--calibrate"
        )
    calibrate = calibrate or (deciding.NONE if checkpoint is None else deciding.SYNTHETIC)
    calibrate = None if calibrate == deciding.NONE else calibrate
    alone = calibrate is None and evaluate is not None  # the degradation is then that of the validation set
    given = options.image_settings("--calibrate", calibrate, None if alone else degrade, crops, crop_size, seed)
    bound = deciding.bound(max_loss, min_psnr, min_agreement)
    if threads is not None and engine is None and checkpoint is None:
        raise typer.BadParameter("needs --engine", param_hint="--threads")
    if precision is not None and engine is None and checkpoint is None:
        raise typer.BadParameter("needs --engine", param_hint="--precision")
    if bound is not None and checkpoint is None and (engine is None or calibrate is None):
        raise typer.BadParameter("without --checkpoint, needs --engine and --calibrate", param_hint=bound.option)
    if bound is not None and bound.measure == "loss" and degrade is None:
        raise typer.BadParameter("needs --degrade, to know the clean images", param_hint="--max-loss")
    given_inputs = options.parse_inputs(inputs)
    destination = None if dry_run or out is None else out.expanduser()
    if destination is not None:
        _check_destination(destination, overwrite)

    from ..bundle.files import save
    from ..bundle.obstacles import obstacles, sentence
    from ..compiler import apply
    from ..report.data import reported
    from ..rewriting.roadmap import Roadmap

    trained = checkpoint is not None
    plan = deciding.target(Roadmap.load(roadmap), engine, threads, precision, as_told=as_told, trained=trained)
    with options.prints_to_stderr(), options.progress_bar(quiet) as phase:
        model, description = options.load_model(target, arguments, checkpoint, key, strip_prefix)
        if not quiet:
            deciding.tell_weights(description)
        example = options.example_inputs(model, given_inputs)
        calibration = None if calibrate is None else deciding.calibration(model, example, calibrate, given)
        if calibration is not None and not quiet:
            _tell(f"calibration: {calibrate if isinstance(calibration, list) else calibration}")
        images = None if evaluate is None else judging.validation(model, example, evaluate, degrade, seed)
        judged = calibration is not None and checkpoint is not None and plan.target is not None
        saving, tell = destination is not None, phase("rewriting")
        result = apply(
            model,
            plan,
            example,
            calibration,
            bound=bound or ("default" if judged else None),
            minutes=minutes,
            to_save=saving,
            compare=compare,
            checkpoint=description or "",
            progress=tell,
        )
        result.verify(progress=phase("comparing outputs"))
        if images is not None:
            result.evaluate(images, progress=phase("judging"))
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
    lost = None if accept_loss else judging.too_much(result.record)
    if lost is not None and destination is not None:
        raise judging.refusal(lost)
    if lost is not None and not quiet:
        _tell(f"without --dry-run nothing would be saved, unless with --accept-loss: {lost.said} on {lost.on}")
    if destination is None:
        if found := obstacles(result.rewritten.program):
            raise BundleError(f"without --dry-run nothing would be saved: {sentence(found)}", code="no-source")
        return
    with options.progress_bar(quiet) as phase:
        saved = save(result.record, destination, overwrite=overwrite, progress=phase("saving"), reported=made)
    if not quiet:
        _tell(f"saved to {saved}")


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


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
