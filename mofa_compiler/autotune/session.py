"""A network that is decided on a target: for one bound, or for several with what was measured once."""

from __future__ import annotations

import math
import time
from functools import cached_property
from typing import Literal

from torch import nn

from ..analysis.network import Network
from ..base.errors import CalibrationError, RoadmapError
from ..base.progress import Forecast, Progress
from ..base.torch_state import threads
from ..calibration import Calibration
from ..frontend import capture
from ..frontend.state import copied
from ..graph.call_spec import CallSpec, InputSpec, specs
from ..result.decisions import Decisions
from ..result.quality import Bound
from ..rewriting.roadmap import Roadmap
from ..rewriting.target import Conditions
from . import schedule
from .deployed import Deployment
from .held_out import HeldOut
from .lowering_search import carried_out
from .pricing import Prices
from .search import DECIDED, Choice, Decided, decide, fastest, survey, told, trials_of

SURVEYED = 0.4
"""Part of the time, where it is bounded, after which no further alternative is measured"""


class Session:
    """What is known of a network on a roadmap's target.

    Args:
        model: the original, to capture it once more where the target has another input.
        network: the same, captured.
        roadmap: with a `target`.
        call: the inputs that it was captured on.
        calibration: inputs that rewritten layers are fitted on.
        bound: on what is lost; None: of all layers what is fastest is taken.
        tell: told before every step.
        minutes: after which nothing new is measured, priced or calibrated, and the best so far is taken.

    Raises:
        CalibrationError, DataError: there is nothing to measure a bound on.
        RoadmapError: a bound makes no sense with this roadmap.
    """

    def __init__(
        self,
        model: nn.Module,
        network: Network,
        roadmap: Roadmap,
        call: CallSpec,
        calibration: Calibration | None,
        bound: Bound | Literal["default"] | None,
        tell: Progress,
        minutes: float | None = None,
    ):
        self._until = math.inf if minutes is None else time.monotonic() + 60 * minutes
        self._model, self._network, self._roadmap, self._call, self._tell = model, network, roadmap, call, tell
        self.calibration, self.held_out = calibration, None
        target = roadmap.target
        if target is None:
            raise RoadmapError(
                "a bound is for what a target is decided for: give the roadmap one (with_target)", code="needs-option"
            )
        self.is_told = target.keep_if == "told"
        if bound is None:
            return
        if calibration is None:
            raise CalibrationError(
                "a bound is measured on calibration inputs, and there are none: give some (calibration=..., "
                "--calibrate)",
                code="needs-option",
            )
        if target.keep_if == "always":
            raise RoadmapError(
                'keep_if = "always" carries the roadmap out whatever it costs, which no bound allows: leave it out of '
                'the roadmap, or have the roadmap carried out as it stands (keep_if = "told", --as-told)',
                code="ambiguous",
            )
        tell("reading calibration inputs", 0, 1)
        side = min(target.shape[2:], default=None) if target.shape else None
        self.held_out = HeldOut(network, calibration, None if bound == "default" else bound, side)
        self.calibration = self.held_out.calibration

    def decided(self, bound: Bound | Literal["exact"] | None = None) -> Decided:
        """The roadmap that measurements come to: its preparations, and what is decided of what they make.

        Args:
            bound: another one than the session's, with the same measure; "exact": exact passes alone.
        """
        deployment, within = self.deployment, None
        if self.prices is None:
            picked = fastest(self._choice)
        elif bound == "exact":
            within = self._bound
            picked = self.prices.nothing(within)
        else:
            within = bound or self._bound
            picked = self.prices.within(within if deployment is None else deployment.left(within))
        with threads(1):  # as in `_choice`
            return decide(self._choice, {DECIDED: picked}, self._forecast, deployment, within)[DECIDED]

    def told(self, made: Network) -> Decisions:
        """What came of the roadmap, which was carried out as it stands and fitted."""
        judge = self.deployment or self.held_out
        quality = None if judge is None else judge.quality(made.program.graph_module)
        network, call = self.timed
        return told(network, self._roadmap, call, quality, self._tell)

    @property
    def conditions(self) -> Conditions:
        """Where it is decided."""
        network, call = self.timed
        return trials_of(network, self._roadmap, call)[0].conditions

    @cached_property
    def prices(self) -> Prices | None:
        """Of all alternatives, where there is a bound."""
        if self.held_out is None:
            return None
        network = carried_out(self._network, self._roadmap.by_phase[0])
        return Prices(network, self._choice, self.held_out, self._forecast, self._until)

    @cached_property
    def deployment(self) -> Deployment | None:
        """What judges networks in the target's precision, where that is another one and there is a bound."""
        network, call = self.timed
        trials, inputs = trials_of(network, self._roadmap, call)
        if self.held_out is None or trials.engine.precision == "fp32":
            return None
        return Deployment(trials.engine, trials.target.threads, self._network, self.held_out, inputs, self._tell)

    @property
    def _bound(self) -> Bound:
        assert self.held_out is not None
        return self.held_out.bound

    @cached_property
    def _choice(self) -> Choice:
        network, call = self.timed
        until, now = self._until, time.monotonic()
        first = now + SURVEYED * (until - now)
        with threads(1):  # graphs are changed, and engines have threads of their own: others would only wait
            return survey(network, self._roadmap, call, self._forecast, bounded=self.held_out is not None, until=first)

    @cached_property
    def _forecast(self) -> Forecast:
        assert self._roadmap.target is not None
        kinds = schedule.kinds(self._network, bounded=self.held_out is not None)
        seconds = schedule.expected(kinds, self._roadmap.target.engine)
        if self.held_out is not None:
            seconds["pricing"] = schedule.PRICE * schedule.PRICED * kinds * self.held_out.seconds
            steps = schedule.TUNE * self.held_out.calibration.tuning * self.held_out.image_seconds
            seconds["fitting"] = schedule.FITS * schedule.FIT * self.held_out.fitted_seconds + schedule.TUNED * steps
        return Forecast(self._tell, seconds, until=self._until)

    @cached_property
    def timed(self) -> tuple[Network, CallSpec]:
        """The network at the size that the target has, captured again where that is another one, and inputs."""
        assert self._roadmap.target is not None
        shape = self._roadmap.target.shape
        if shape is None or shape in [spec.shape for spec in self._network.program.inputs[:1]]:
            return self._network, self._call
        left = [shape]
        call = specs(self._call).map(lambda spec: InputSpec(left.pop() if left else spec.shape, spec.dtype))
        program = capture(copied(self._model), call, compare=False)  # it was, at the example's size
        return Network(program, self._network.anatomy), program.call.example(device=program.device)
