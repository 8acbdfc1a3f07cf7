"""`apply`: a model and a roadmap in, a rewritten model with its weights and a report out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from ..base.errors import CalibrationError
from ..base.progress import Progress
from ..base.torch_state import in_normal_mode
from ..frontend.capture import capture
from ..frontend.causes import check_model
from ..frontend.state import copied, real_device
from ..graph.call_spec import ExampleInputs
from ..graph.program import Program
from ..loading.wrappers import unwrapped
from ..numerics.finite import check_weights
from ..result.quality import Bound
from ..rewriting.pass_api import Pass
from ..rewriting.roadmap import Roadmap
from .result import Result
from .start import start

if TYPE_CHECKING:
    from ..calibration import Calibration


@in_normal_mode
@real_device()
def apply(
    model: nn.Module,
    roadmap: str | Path | Roadmap | Iterable[Pass],
    example_inputs: ExampleInputs = None,
    calibration: str | Path | Iterable[Any] | Calibration | None = None,
    *,
    max_loss: float | None = None,
    bound: Bound | Literal["default"] | None = None,
    minutes: float | None = None,
    to_save: bool = False,
    compare: bool = True,
    checkpoint: str | None = None,
    progress: Progress | None = None,
) -> Result:
    """Carry out a roadmap on a copy of `model`.

    Args:
        model: any module that `capture` takes, on any device, in train or eval mode; it is not modified. Of a wrapped
            one (torch.compile, DataParallel, AveragedModel) it is the network inside that is rewritten.
        roadmap: a preset's name, a TOML file's path, a `Roadmap` or a list of passes. One with a target is decided
            by measurement on that engine first; `Result.roadmap` is what came of it, `Result.decisions` why.
        example_inputs: as for `capture`: a tensor, a sequence of arguments, or a mapping of keyword arguments; by
            default (1, C, 256, 256) for the first convolution.
        calibration: inputs like those that the network will meet, on which the rewritten one is fitted to the original:
            an iterable of batches (tensors, or tuples of arguments); for a network of one image also a folder of
            images, a `.npy` file of inputs, or `synthetic`; or a `Calibration`, which has settings. The result then
            has one more diff, "calibration", behind the passes and before the lowerings. Without it, weights are
            inherited in closed form, without data.
        max_loss: short for `bound=Bound("loss", max_loss)`.
        bound: for a roadmap with a target and a calibration: what saves most time is chosen of all networks that are
            within this bound on inputs that were held out of the calibration (see `Bound`). "default": 0.15 dB of
            loss where clean images are known, else 45 dB to the original's output, or 99.5 % of its labels.
        minutes: under a bound: after so many nothing new is priced or calibrated, and the best so far is taken.
        compare: as for `capture`.
        to_save: the result is to be saved as a bundle: refuse before the work what `Result.save` would refuse after it.
        checkpoint: what the model's weights were read from, in words, for the report; empty where they are those that
            it is built with.
        progress: told before every step.

    A frozen weight (`requires_grad` off) stays frozen in whatever layer it ends up: what is made of several layers is
    frozen if it is so in all of them, weights and biases each for themselves. Parameters of the result can be trained,
    also where it was called under `torch.inference_mode()`.

    Raises:
        BundleError: with `to_save`, for a network that no bundle can hold.
        CaptureError, AnatomyError, RoadmapError, RewriteError, DataError, CalibrationError, EngineError: as their
            docstrings say; nothing is half done.
    """
    if not isinstance(roadmap, Roadmap):
        roadmap = Roadmap.load(roadmap) if isinstance(roadmap, (str, Path)) else Roadmap(roadmap)
    tell = progress or (lambda *_: None)
    model = unwrapped(model)
    check_model(model)
    check_weights(model)
    tell("capturing", 0, len(roadmap) + 1)
    program = capture(copied(model), example_inputs, compare=compare)
    return apply_captured(
        model,
        program,
        roadmap,
        calibration,
        bound=_bound(bound, max_loss),
        minutes=minutes,
        to_save=to_save,
        checkpoint=checkpoint,
        tell=tell,
    )


@in_normal_mode
@real_device()
def apply_captured(
    model: nn.Module,
    program: Program,
    roadmap: Roadmap,
    calibration: str | Path | Iterable[Any] | Calibration | None = None,
    *,
    bound: Bound | Literal["default"] | None = None,
    minutes: float | None = None,
    to_save: bool = False,
    checkpoint: str | None = None,
    tell: Progress = lambda *_: None,
) -> Result:
    """`apply` to a model of which a copy was captured already, as `program`."""
    return start(
        model,
        program,
        roadmap,
        calibration,
        bound=bound,
        minutes=minutes,
        to_save=to_save,
        checkpoint=checkpoint,
        tell=tell,
    ).result()


def _bound(bound: Bound | Literal["default"] | None, max_loss: float | None) -> Bound | Literal["default"] | None:
    """The one bound of two ways to give it.

    Raises:
        CalibrationError: both are given, or it makes no sense.
    """
    if max_loss is None:
        return bound
    if bound is not None:
        raise CalibrationError("max_loss and bound are two bounds: give one", code="ambiguous")
    return Bound("loss", max_loss)
