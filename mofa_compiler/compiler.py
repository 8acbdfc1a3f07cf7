"""`apply`: a model and a roadmap in, a rewritten model with its weights and a report out."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, fx, nn

from .analysis.anatomy import infer
from .analysis.network import Network, Totals
from .base.errors import CalibrationError
from .base.progress import Progress
from .base.torch_state import in_normal_mode
from .bundle import obstacles, save
from .bundle.original import digest
from .data import CalibrationImages, Sample, ValidationImages
from .frontend.capture import capture
from .frontend.causes import check_model
from .frontend.state import copied, real_device
from .graph.call_spec import CallSpec, ExampleInputs, InputSpec, map_tree
from .graph.program import Program
from .loading.wrappers import unwrapped
from .numerics.finite import check_weights, warn_of_values
from .report.data import report
from .report.notebook import line, table
from .report.pictures import pictures_of
from .result.decisions import Decisions
from .result.quality import Bound, Quality
from .result.recovery import Recovery
from .result.rewrite import KeyFate, Provenance, Rewrite, Step
from .result.verdict import Verdict
from .rewriting.diff import Diff
from .rewriting.engine import rewrite, without_idle_preparations
from .rewriting.pass_api import Pass
from .rewriting.roadmap import Roadmap
from .verification.per_pass import judge
from .verification.validation import validated

if TYPE_CHECKING:
    from .autotune.held_out import HeldOut
    from .autotune.session import Session
    from .calibration import Calibration
    from .calibration.calibrate import Calibrated


class Result:
    """What `apply` returns: the rewritten network, the record of how it came about, and what can be done with both.

    Attributes:
        record: what was done, which does not change; `verify` and `recover` put a new one in its place.
    """

    def __init__(self, record: Rewrite):
        self.record = record

    def __repr__(self) -> str:
        return line(self.record)

    def _repr_html_(self) -> str:
        return table(self.record)

    @property
    def model(self) -> fx.GraphModule:
        """The rewritten network, a trainable `torch.fx.GraphModule` that shares nothing with the input model."""
        return self.record.model

    @property
    def roadmap(self) -> Roadmap:
        """The passes that were carried out."""
        return self.record.roadmap

    @property
    def steps(self) -> tuple[Step, ...]:
        """What each pass did, in order, and the calibration, if there was one."""
        return self.record.steps

    @property
    def diffs(self) -> tuple[Diff, ...]:
        """One report a step, in order."""
        return self.record.diffs

    @property
    def original(self) -> Network:
        """The network before the first pass, as it was when `apply` ran."""
        return self.record.original

    @property
    def rewritten(self) -> Network:
        """The network after the last pass, as it was when `apply` ran."""
        return self.record.rewritten

    @property
    def networks(self) -> tuple[Network, ...]:
        """The network before the first pass and after each step."""
        return self.record.networks

    @property
    def example(self) -> CallSpec:
        """The example inputs."""
        return self.record.example

    @property
    def inputs(self) -> tuple[InputSpec, ...]:
        """Shapes and dtypes of the tensors among the example inputs."""
        return self.record.inputs

    @property
    def evaluation(self) -> Sequence[CallSpec] | None:
        """Inputs that verification measures on, if there are better ones than the example."""
        return self.record.evaluation

    @property
    def checkpoint(self) -> str | None:
        """What the original's weights were read from, in words, if that is known; empty where from nowhere."""
        return self.record.provenance.checkpoint

    @property
    def original_digest(self) -> str:
        """Of the weights that the original had, in hexadecimal."""
        return self.record.provenance.original_digest

    @property
    def channel_orders(self) -> Mapping[int, tuple[int, ...]]:
        """How calibration permuted channels of the original (see `mofa_compiler.calibration`)."""
        return self.record.provenance.channel_orders

    @property
    def recoveries(self) -> tuple[Recovery, ...]:
        """How `model` was trained by `recover` since, one entry a call."""
        return self.record.provenance.recoveries

    @property
    def samples(self) -> Sequence[Sample]:
        """Images that the report shows, if there are any."""
        return self.record.samples

    @property
    def decisions(self) -> Decisions | None:
        """What was measured on the roadmap's target and chosen by it, if it had one."""
        return self.record.provenance.decisions

    @property
    def before(self) -> Totals:
        """Parameters and MACs of the original."""
        return self.record.before

    @property
    def after(self) -> Totals:
        """Parameters and MACs of the rewritten network."""
        return self.record.after

    @property
    def keymap(self) -> Mapping[str, KeyFate]:
        """Every state_dict key of the original model: the keys that it became, and how."""
        return self.record.keymap

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """What was promised exact, checked, and how far each pass moved the output; runs the networks on first use."""
        return self.verify() if self.record.verdicts is None else self.record.verdicts

    def verify(
        self, progress: Progress | None = None, inputs: Iterable[Any] | None = None, name: str = "given input"
    ) -> tuple[Verdict, ...]:
        """Measure anew; `verdicts` and `report` say from then on what came out.

        Args:
            progress: told about every network that is run.
            inputs: batches to run the networks on, tensors or tuples of arguments; by default `evaluation`, without
                that the example input.
            name: what the report calls one of them, perhaps with where they come from in parentheses.

        Raises:
            VerificationError: there are no inputs, or the network does not take them.
        """
        with real_device():
            found = judge(self.record, inputs, name, progress)
        self.record = self.record.with_verdicts(found)
        return found

    @property
    def report(self) -> dict[str, Any]:
        """The whole report as plain data, as `report.json` holds it."""
        record = self._verified()
        return report(record, pictures_of(record)).to_data()

    @property
    def quality(self) -> Quality | None:
        """What the network was worth on inputs held out of its calibration, before any training, if there are any."""
        return self.record.quality

    def evaluate(
        self, images: str | Path | ValidationImages, degradation: str | None = None, *, progress: Progress | None = None
    ) -> Quality:
        """What `model` is worth on a validation set beside the original; `report` says so from then on.

        Args:
            images: a folder with pairs in `input` and `target`, or of clean images with a degradation, or without one,
                where the original's output is what is compared with.
            degradation: what makes inputs of clean images, such as `gaussian:25`.
            progress: told before every image.

        Raises:
            DataError: the images cannot be read.
            VerificationError: a network takes something other than one image, or no part of one of these.
        """
        with real_device():
            self.record = validated(self.record, images, degradation, progress)
        assert self.record.validation is not None
        return self.record.validation

    def save(self, directory: str | Path, *, overwrite: bool = True, progress: Progress | None = None) -> Path:
        """Write a bundle: source, weights, recipe, key map and reports (see `mofa_compiler.bundle`).

        Raises:
            BundleError: the folder exists and is not a bundle (or is one and `overwrite` is off), or the network holds
                a module whose source cannot be written.
        """
        return save(self._verified(), Path(directory), overwrite=overwrite, progress=progress)

    def _verified(self) -> Rewrite:
        if self.record.verdicts is None:
            self.verify()
        return self.record


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


def start(
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
) -> Start:
    """What `apply_captured` does before it carries anything out."""
    original_digest = digest(model)
    settings = None if calibration is None else _calibration(calibration, program)
    network = Network(program, infer(program))
    if to_save:
        obstacles.refuse(network, roadmap)
    call = program.example.example(device=program.device)
    args, kwargs = map_tree((call.args, dict(call.kwargs)), Tensor, lambda t: t.detach().clone().to(program.device))
    example = CallSpec(args, kwargs)
    warn_of_values(network, example)
    session, held_out, told = None, None, {pass_.name for pass_ in roadmap}
    if bound is not None and roadmap.target is not None and roadmap.target.keep_if != "told":
        roadmap = roadmap.with_preparations()
    if bound is None and settings is not None and isinstance(settings.batches, CalibrationImages):
        from .autotune.held_out import HeldOut

        if settings.batches.crops > 1:
            held_out = HeldOut(network, settings)
            settings = held_out.calibration
    if settings is not None:
        from .calibration import informed

        roadmap, settings = informed(roadmap, network, settings, tell)
    roadmap = without_idle_preparations(network, roadmap, told)
    if roadmap.target is not None or bound is not None:
        from .autotune.session import Session

        session = Session(model, network, roadmap, example, settings, bound, tell, minutes)
        settings, held_out = session.calibration, held_out or session.held_out
    provenance = Provenance(checkpoint, original_digest)
    return Start(network, roadmap, settings, example, provenance, session, held_out, tell)


@dataclass(frozen=True)
class Start:
    """A captured model with all that is given for it, of which one result after another can be made."""

    network: Network
    roadmap: Roadmap
    calibration: Calibration | None
    example: CallSpec
    provenance: Provenance
    session: Session | None
    held_out: HeldOut | None
    tell: Progress

    def result(self, bound: Bound | Literal["exact"] | None = None) -> Result:
        """The roadmap carried out, after it was decided where it has a target: within the first bound, or another."""
        network, roadmap, session, decided = self.network, self.roadmap, self.session, None
        if session is not None and not session.is_told:
            decided = session.decided(bound)
            roadmap = decided.roadmap
        fitted = None if decided is None else decided.calibrated
        steps, calibrated = _carried_out(network, roadmap, self.calibration, self.tell, fitted)
        last = steps[-1].network if steps else network
        decisions = None if decided is None else decided.decisions
        if session is not None and decisions is None:
            decisions = session.told(last)
            roadmap = Roadmap(roadmap, roadmap.name, roadmap.description)
        quality = None if decisions is None else decisions.quality
        if quality is None and self.held_out is not None:
            quality = replace(self.held_out.quality(last.program.graph_module), limit=None)
        evaluation = None if calibrated is None else calibrated.evaluation
        orders = {} if calibrated is None else calibrated.orders
        return Result(
            Rewrite(
                roadmap=roadmap,
                original=network,
                steps=steps,
                example=self.example,
                model=copy.deepcopy(last.program.graph_module),
                evaluation=evaluation,
                samples=() if self.calibration is None else self.calibration.samples(evaluation or ()),
                provenance=replace(self.provenance, decisions=decisions, channel_orders=orders),
                quality=quality,
            )
        )


def _carried_out(
    network: Network, roadmap: Roadmap, settings: Calibration | None, tell: Progress, fitted: Calibrated | None = None
) -> tuple[tuple[Step, ...], Calibrated | None]:
    """What each pass made of the network; a calibration, where there is one, comes before the lowerings.

    It fits what the passes made of the network to what the preparations left of it.

    `fitted`: the calibrated network, where deciding has made it already.
    """
    number = len(roadmap) + 1
    preparations, passes, lowerings = roadmap.by_phase
    steps: list[Step] = []

    def carry_out(start: Network, some: Iterable[Pass], first: int) -> None:
        for index, step in enumerate(_steps(start, some), first):
            tell(step.name, index, number)
            steps.append(step)

    carry_out(network, preparations, 1)
    prepared = steps[-1].network if steps else network
    carry_out(prepared, passes, len(steps) + 1)
    made, calibrated = steps[len(preparations) :], fitted
    if calibrated is None and settings is not None and passes:  # without a pass there is nothing to fit
        from .calibration import calibrate

        networks = [prepared, *(step.network for step in made)]
        calibrated = calibrate(settings, networks, lambda other: [step.network for step in _steps(other, passes)], tell)
    if calibrated is not None:
        *after, final = calibrated.networks
        steps[len(preparations) :] = [replace(step, network=one) for step, one in zip(made, after, strict=True)]
        steps.append(Step(None, calibrated.diff, final))
    carry_out(steps[-1].network if steps else network, lowerings, number - len(lowerings))
    tell("done", number, number)
    return tuple(steps), calibrated


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


def _steps(network: Network, passes: Iterable[Pass]) -> Iterator[Step]:
    """What every pass did."""
    for pass_ in passes:
        network, diff = rewrite(network, pass_)
        yield Step(pass_, diff, network)


def _calibration(given: str | Path | Iterable[Any] | Calibration, program: Program) -> Calibration:
    from .calibration import Calibration

    if isinstance(given, Calibration):
        return given
    if not isinstance(given, (str, Path)):
        return Calibration(given)
    specs = program.inputs
    if len(specs) != 1 or len(specs[0].shape) != 4:
        raise CalibrationError(
            f"calibration={str(given)!r} is for networks of one image: pass batches of all inputs", code="wrong-input"
        )
    return Calibration(CalibrationImages(given, channels=specs[0].shape[1]))
