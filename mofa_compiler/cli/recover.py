"""`mofa recover`: train a bundle's network to do what the original does."""

from __future__ import annotations

import json
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options
from .training import duration, training_bar

if TYPE_CHECKING:
    from ..distillation import Recovery


class Precision(StrEnum):
    """What `--mixed-precision` may be."""

    no = "no"
    bf16 = "bf16"
    fp16 = "fp16"


def recover(
    bundle: options.Bundle,
    original: options.Original,
    data: Annotated[
        Path,
        typer.Option(
            metavar="DIR", help="Images: pairs in input/ and target/; or clean ones, with --degrade; or inputs alone."
        ),
    ],
    arguments: options.Arguments = None,
    checkpoint: options.Checkpoint = None,
    key: options.Key = None,
    strip_prefix: options.StripPrefix = None,
    degrade: options.Degrade = None,
    validation: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Images to validate on; by default a tenth of DIR, at least one."),
    ] = None,
    patch: Annotated[int, typer.Option(metavar="PIXELS", min=1, help="Side of a training patch of the input.")] = 64,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps; 1000 without --minutes.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Training time, instead of --steps.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Patches a step, over all processes; 8 by default.")] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Peak learning rate of AdamW; 0.001 by default.")] = None,
    features: Annotated[float | None, typer.Option(help="Weight of the original's features; 1 by default.")] = None,
    output: Annotated[float | None, typer.Option(help="Weight of the original's output; 1 by default.")] = None,
    target_: Annotated[float | None, typer.Option("--target", help="Weight of the ground truth; 1 by default.")] = None,
    clip: Annotated[float | None, typer.Option(help="Largest norm of the gradient, 0 for any; 1 by default.")] = None,
    ema: Annotated[float | None, typer.Option(help="Keep the running mean of the weights, with this decay.")] = None,
    mixed_precision: Annotated[Precision | None, typer.Option(help="Precision of the training steps.")] = None,
    batch_statistics: Annotated[
        bool, typer.Option("--batch-statistics", help="Let batch normalization go by the batch and learn statistics.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of order, places and noise.")] = 0,
    validate_every: Annotated[
        int | None, typer.Option(metavar="STEPS", min=1, help="Between validations; 100.")
    ] = None,
    save_every: Annotated[
        int | None, typer.Option(metavar="STEPS", min=1, help="Between states to go on from; 100 by default.")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read images.")] = 0,
    cpu: Annotated[bool, typer.Option("--cpu", help="Leave GPUs alone.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Forget an interrupted run and begin anew.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what came out as JSON.")] = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Train a saved network to do what its original does.

    The network learns the original's features at the ends of the stages, its output, and the ground truth where it is
    known. The bundle gets the weights with the best validation PSNR.
    Another original than the bundle was made from is an error, by a digest of its weights.
    When it is killed, the same command goes on where it was: its state is in BUNDLE.recovery until it is done.

    \b
    mofa recover net-mofa --original arch.py:Net --checkpoint net.pth \\
        --data photos --degrade gaussian:5-50
    mofa recover net-mofa --original arch.py:Net --data pairs --minutes 30
    accelerate launch -m mofa_compiler.cli recover …    # on many GPUs

    \b
    Exit codes:
      0    done, also where nothing was better than the start
      1    an error in the input, in one line on stderr
      2    wrong usage
      130  interrupted; the same command goes on
    """
    options.refuse_with_quiet(quiet, {"--json": as_json})
    if steps is not None and minutes is not None:
        raise typer.BadParameter("say how long by one of --steps and --minutes", param_hint="--minutes")
    import torch.distributed

    from ..bundle.original import recorded
    from ..bundle.recipe import read_recipe
    from ..distillation import recover as run

    known = recorded(read_recipe(bundle.expanduser()))
    main = os.environ.get("RANK", "0") == "0"
    given: dict[str, Any] = {
        "steps": steps,
        "minutes": minutes,
        "batch": batch,
        "lr": lr,
        "features": features,
        "output": output,
        "target": target_,
        "clip": clip,
        "ema": ema,
        "mixed_precision": mixed_precision.value if mixed_precision else None,
        "validate_every": validate_every,
        "save_every": save_every,
    }
    with options.prints_to_stderr(), training_bar(quiet or not main) as progress:
        model, description = options.load_model(original, arguments, checkpoint, key, strip_prefix)
        if main and not quiet:
            _tell(f"weights: {description}" if description else _no_checkpoint(original))
            if not known:
                _tell(f"warning: {bundle} does not say from which weights it was made: not compared with these")
        recovery = run(
            bundle,
            model,
            data.expanduser(),
            validation=validation.expanduser() if validation else None,
            degradation=degrade,
            patch=patch,
            restart=restart,
            progress=progress,
            batch_statistics=batch_statistics,
            seed=seed,
            workers=workers,
            cpu=cpu,
            **{name: value for name, value in given.items() if value is not None},
        )
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    if not main or quiet:
        return
    if as_json:
        from ..base.plain import plain_data

        print(json.dumps(plain_data(recovery.to_data()), indent=2, ensure_ascii=False))
    else:
        print(_summary(recovery))
    sys.stdout.flush()
    _tell(f"saved to {bundle}" if recovery.improved else f"{bundle} keeps its weights")


def _summary(recovery: Recovery) -> str:
    known = recovery.psnr_original is not None
    against = f"original {recovery.psnr_original:.2f} dB" if known else "against the original's output"
    took = f"{recovery.steps} steps in {duration(recovery.seconds)}"
    if not recovery.improved:
        return f"validation PSNR {recovery.psnr_before:.2f} dB ({against}): nothing better came of {took}"
    change = f"{recovery.psnr_before:.2f} → {recovery.psnr_after:.2f} dB"
    return f"validation PSNR {change} ({against}), step {recovery.best_step} of {took}"


def _no_checkpoint(target: str) -> str:
    return (
        f"warning: no --checkpoint: {target.rpartition(':')[2]} has the weights that it starts with, usually random, "
        "from which there is nothing to learn"
    )


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
