"""`mofa capture`: what was captured of a network, and what was not."""

from __future__ import annotations

import json
import warnings
from typing import Annotated

import typer

from . import options


def capture(
    target: options.Target,
    arguments: options.Arguments = None,
    inputs: options.Inputs = None,
    train: Annotated[
        bool, typer.Option("--train", help="Capture what it does in train mode, not in eval mode.")
    ] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    compare: options.Compare = True,
    debug: options.Debug = False,
) -> None:
    """Show what the compiler sees of a network.

    Convolutions found and missed, parts that could not be seen into and why, what no pass will rewrite, and what was
    decided for this input size.

    \b
    mofa capture arch.py:Net --input 1x3x512x512
    mofa capture models.unet:UNet --json

    \b
    Exit codes:
      0    done, also where parts could not be seen into
      1    an error in the input, in one line on stderr
      2    wrong usage
      130  interrupted
    """
    options.refuse_with_quiet(quiet, {"--json": as_json})
    given_inputs = options.parse_inputs(inputs)

    from ..frontend import CaptureWarning
    from ..frontend import capture as trace
    from ..report.printing.captured import captured, print_captured

    with (
        options.prints_to_stderr(),
        options.progress_bar(quiet) as phase,
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always")
        tell = phase("capturing")
        tell("building the model", 0, 2)
        model, _ = options.load_model(target, arguments, None, None, None)
        tell("tracing it", 1, 2)
        program = trace(model.train(train), options.example_inputs(model, given_inputs), compare=compare)
    warned = [str(warning.message) for warning in caught if issubclass(warning.category, CaptureWarning)]
    for warning in caught:
        if not issubclass(warning.category, CaptureWarning):  # somebody else's, shown as it would have been
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    data = captured(program, warned, options.obstacles_data(program))
    if as_json:
        print(json.dumps(data.to_data(), indent=2, ensure_ascii=False))
    elif not quiet:
        print_captured(data, options.stdout_console())
