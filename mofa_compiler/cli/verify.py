"""`mofa verify`: whether a bundle still is what it says."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..base.errors import DataError, VerificationError
from ..base.precision import HALF, Half
from . import options

if TYPE_CHECKING:
    from ..data import CalibrationImages


def verify(
    bundle: options.Bundle,
    original: options.Original,
    arguments: options.Arguments = None,
    checkpoint: options.Checkpoint = None,
    key: options.Key = None,
    strip_prefix: options.StripPrefix = None,
    inputs: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|FILE.npy|synthetic",
            help="Measure on these: a folder of images, network inputs (N, C, H, W), or generated images.",
            show_default="the example input",
        ),
    ] = None,
    degrade: options.Degrade = None,
    crops: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Crops to measure on.", show_default="16")
    ] = None,
    crop_size: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Their side in pixels.", show_default="at most 128")
    ] = None,
    trained: Annotated[
        bool, typer.Option("--trained", help="Another program has trained the weights since: they may differ.")
    ] = False,
    precision: Annotated[
        Half | None,
        typer.Option(
            metavar="fp16|bf16",
            parser=options.one_of(HALF),
            help="Also run it with everything stored in this precision, and name the first layer that overflows.",
        ),
    ] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Check a bundle against the network that it was made from.

    The recipe is carried out anew on the original. Passes that claim to be exact are checked in float64, layer by
    layer and as whole networks, at two input sizes. The original's weights are told by a digest from others. The saved
    source, key map, weights and reports are compared with what comes out, and the error of the saved network's output
    is measured. This runs the bundle's model.py, but only where that is, line by line, what the recipe makes.

    \b
    mofa verify net-mofa --original arch.py:Net --checkpoint net.pth
    mofa verify net-mofa --original arch.py:Net --inputs photos --degrade jpeg:30
    mofa verify net-mofa --original arch.py:Net --inputs photos --precision fp16

    \b
    Exit codes:
      0    done, and everything is as it should be
      1    something is not, or an error in the input, in one line on stderr
      2    wrong usage
      130  interrupted
    """
    options.refuse_with_quiet(quiet, {"--json": as_json})
    given = options.image_settings("--inputs", inputs, degrade, crops, crop_size)

    from ..reproduce.verify import verify as check

    batches = None if inputs is None else _images(bundle.expanduser(), inputs, given)
    with options.prints_to_stderr(), options.progress_bar(quiet) as phase:
        model, description = options.load_model(original, arguments, checkpoint, key, strip_prefix)
        if description is None and not quiet:
            print("warning: no --checkpoint: the original has the weights that it starts with", file=sys.stderr)
        name = f"input ({', '.join(filter(None, (inputs, degrade)))})"
        found = check(
            bundle, model, batches, name=name, trained=trained, precision=precision, progress=phase("verifying")
        )
    if as_json:
        print(json.dumps(found.to_data(), indent=2, ensure_ascii=False))
    elif not quiet:
        from ..report.printing.verification import print_verification

        print_verification(found.to_data(), options.stdout_console())
    sys.stdout.flush()
    if found.problems:
        more = f" (and {len(found.problems) - 1} more)" if len(found.problems) > 1 else ""
        raise VerificationError(f"{bundle}: {found.problems[0]}{more}", code="failed")


def _images(bundle: Path, source: str, settings: dict[str, Any]) -> CalibrationImages:
    """The images to measure on, as the recipe's network takes them.

    Raises:
        BundleError: there is no bundle.
        DataError: they cannot be read, or the network takes something other than one image.
    """
    from ..bundle.recipe import read_recipe
    from ..data import CalibrationImages
    from ..graph.call_spec import CallSpec

    taken = CallSpec.from_data(read_recipe(bundle)["inputs"]).tensors
    if len(taken) != 1 or len(taken[0].shape) != 4:
        shapes = ", ".join(map(str, taken))
        raise DataError(
            f"--inputs is for networks of one image, this takes {shapes}: call mofa_compiler.verify", code="wrong-input"
        )
    _, channels, height, width = taken[0].shape
    return CalibrationImages(source, **{"channels": channels, "size": min(128, height, width), "crops": 16, **settings})
