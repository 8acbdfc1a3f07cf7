"""Options of commands that judge what they made: a validation set, and a loss that is accepted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..base.errors import DataError, VerificationError

if TYPE_CHECKING:
    from torch import nn

    from ..data import ValidationImages
    from ..graph.call_spec import ExampleInputs
    from ..result.quality import Quality
    from ..result.rewrite import Rewrite

Eval = Annotated[
    str | None,
    typer.Option(
        "--eval",
        metavar="DIR",
        help="Judge the result on your validation set, whole images: pairs in input/ and target/, or clean ones with "
        "--degrade.",
    ),
]
AcceptLoss = Annotated[
    bool,
    typer.Option(
        "--accept-loss",
        help="Save it also where more was lost on held-out images than 0.3 dB (42 dB to the original, 99 % of the "
        "labels) and than a bound that is given.",
    ),
]


def validation(
    model: nn.Module, example: ExampleInputs, folder: str, degrade: str | None, seed: int | None
) -> ValidationImages:
    """The images of `--eval`.

    Raises:
        DataError: they cannot be read, or the network takes something other than one image.
    """
    from ..data import ValidationImages
    from ..graph.call_spec import example_call, specs

    call = specs(example_call(model, example))
    if len(call.tensors) != 1 or len(call.tensors[0].shape) != 4:
        raise DataError(f"--eval is for networks of one image, this takes {call}", code="wrong-input")
    return ValidationImages(folder, channels=call.tensors[0].shape[1], degradation=degrade, seed=seed or 0)


def too_much(rewrite: Rewrite) -> Quality | None:
    """The figure by which trained weights lost more than is accepted unasked; None where they did not."""
    if not rewrite.provenance.checkpoint:
        return None
    found = (rewrite.validation, rewrite.quality)
    return next((one for one in found if one is not None and not one.is_acceptable), None)


def refusal(lost: Quality) -> VerificationError:
    """What is raised in place of saving."""
    from ..result.quality import ACCEPTED, Bound

    accepted = Bound(lost.measure, ACCEPTED[lost.measure])
    return VerificationError(
        f"{lost.said} on {lost.on}, where {accepted} are accepted: nothing was saved; bound it ({accepted.option}), "
        "calibrate on more images like those that it will meet (--calibrate), or save it all the same "
        "(--accept-loss), to train it on, say (mofa recover)",
        code="lossy",
    )
