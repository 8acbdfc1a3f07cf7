"""A captured model with all that is given for it, and the results that are made of that."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, nn

from ..analysis.anatomy import infer
from ..analysis.network import Network
from ..base.errors import CalibrationError
from ..base.progress import Progress
from ..bundle import obstacles
from ..bundle.original import digest
from ..data import CalibrationImages
from ..graph.call_spec import CallSpec, map_tree
from ..graph.program import Program
from ..numerics.finite import warn_of_values
from ..result.quality import Bound
from ..result.rewrite import Provenance, Rewrite, Step
from ..rewriting.engine import rewrite, without_idle_preparations
from ..rewriting.pass_api import Pass
from ..rewriting.roadmap import Roadmap
from .result import Result

if TYPE_CHECKING:
    from ..autotune.held_out import HeldOut
    from ..autotune.session import Session
    from ..calibration import Calibrated, Calibration


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
        from ..autotune.held_out import HeldOut

        if settings.batches.crops > 1:
            held_out = HeldOut(network, settings)
            settings = held_out.calibration
    if settings is not None:
        from ..calibration import informed

        roadmap, settings = informed(roadmap, network, settings, tell)
    roadmap = without_idle_preparations(network, roadmap, told)
    if roadmap.target is not None or bound is not None:
        from ..autotune.session import Session

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
        networks = [prepared, *(step.network for step in made)]
        calibrated = _calibrated(
            settings, networks, lambda other: [step.network for step in _steps(other, passes)], tell
        )
    if calibrated is not None:
        *after, final = calibrated.networks
        steps[len(preparations) :] = [replace(step, network=one) for step, one in zip(made, after, strict=True)]
        steps.append(Step(None, calibrated.diff, final))
    carry_out(steps[-1].network if steps else network, lowerings, number - len(lowerings))
    tell("done", number, number)
    return tuple(steps), calibrated


def _calibrated(
    settings: Calibration,
    networks: Sequence[Network],
    carry_out: Callable[[Network], Sequence[Network]],
    tell: Progress,
) -> Calibrated:
    """Calibrated; once more with more inputs where there were too few and further ones can be drawn."""
    from ..calibration import calibrate

    found = calibrate(settings, networks, carry_out, tell)
    more = settings.more() if "too_few" in found.diff.options else None
    return found if more is None else _calibrated(more, networks, carry_out, tell)


def _steps(network: Network, passes: Iterable[Pass]) -> Iterator[Step]:
    """What every pass did."""
    for pass_ in passes:
        network, diff = rewrite(network, pass_)
        yield Step(pass_, diff, network)


def _calibration(given: str | Path | Iterable[Any] | Calibration, program: Program) -> Calibration:
    from ..calibration import Calibration

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
