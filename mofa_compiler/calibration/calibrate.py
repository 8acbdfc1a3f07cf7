"""A rewritten network fitted to its original on example inputs: order of channels, closed forms, then tuning."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from ..analysis.channel_order import Orders, reordered
from ..analysis.channels import Channels
from ..analysis.network import Network
from ..base.errors import RewriteError
from ..base.progress import Progress
from ..graph.program import Program
from ..numerics.error_sums import Figures
from ..numerics.running import evaluating, rounding, run, values
from ..rewriting.diff import Diff
from ..rewriting.fate import Fate
from .batches import Batches, gather
from .block_tuning import tune_blocks
from .candidate import Candidate
from .hidden_ranks import Ranks, ranks
from .ordering import channel_orders
from .outcome import NAME, Calibrated, Stage, edits_of, refusal_of, set_modes, with_what_stayed
from .sensitivity import sensitivities
from .settings import Calibration
from .sufficiency import too_few
from .tuning import tune

EVALUATED = 4
"""How many batches of what was not fitted to a result keeps to be verified on"""

FAR = 0.05
"""Relative error of the output from which on blocks are tuned before the whole: the dense U-Net wins 1 dB by it"""


class _Steps:
    """What was tried, on inputs that nothing was fitted to: a step that is no better is not built on."""

    def __init__(self, original: Network, passes: Sequence[Network], held_out: Batches, tell: Progress):
        self._original, self._held_out, self._tell = original, held_out, tell
        self.stages: list[Stage] = []
        self.best = self.last = Candidate(original, passes, passes[-1], {})
        self.error = math.inf
        self.take("inherited", self.best)

    def take(self, name: str, candidate: Candidate) -> bool:
        """Whether this is better than all before, and kept."""
        self.last = candidate
        error = _error(self._original, candidate.final, self._held_out, self._tell)
        better = not self.stages or error < self.error
        self.stages.append(Stage(name, error, better))
        if better:
            self.best, self.error = candidate, error
        return better


def calibrate(
    calibration: Calibration,
    networks: Sequence[Network],
    carry_out: Callable[[Network], Sequence[Network]],
    tell: Progress,
) -> Calibrated:
    """Fit the last of `networks`, the rewritten one, to the first, and keep each step that made the output better.

    What is better is seen on inputs that were not fitted to: an eighth of them, or the mirror image of a single one.

    Args:
        calibration: the inputs and the settings.
        networks: the original and the network after each pass.
        carry_out: the same passes on another original: returns the network after each.
        tell: told before every step.

    Raises:
        CalibrationError: there are no inputs, or the network does not take them.
    """
    original = networks[0]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mofa-calibration-")))
        original_module = original.program.graph_module
        stack.enter_context(evaluating(original_module))
        stack.enter_context(_unwritten(original.program))
        tell("reading calibration inputs", 0, 1)
        like = next((t for t in original.program.state().values() if t.is_floating_point()), torch.empty(0))
        batches = gather(calibration.batches, original, folder, like, original.program.inputs)
        stack.enter_context(batches.threads())
        fitting, held_out = batches.apart()
        steps = _Steps(original, networks[1:], held_out, tell)
        differs = steps.error > rounding(original.program)  # else there is nothing to fit
        if calibration.order and differs:
            tell("choosing channels", 0, 1)
            channels = Channels(original.program)
            hidden = ranks(original, networks[-1], fitting)
            felt = partial(sensitivities, original, fitting)
            orders = channel_orders(channels, original, networks[-1], fitting, hidden.kept, felt)
            if orders or hidden.kept:
                aligned = in_new_order(original, channels, orders, hidden)
                stack.enter_context(evaluating(aligned.program.graph_module))
                _check_order(original, aligned, batches)
                passes = carry_out(aligned)
                steps.take("channels chosen", Candidate(aligned, passes, passes[-1], orders))
        if calibration.fit and differs:
            start = steps.best
            steps.take("fitted", start.changed(stack).fitted(fitting, folder, tell))
            if start.repeats:  # at other calls a layer gets what its own fit has changed
                once = start.changed(stack).fitted(fitting, folder, tell, repeated=False)
                steps.take("fitted but for layers called several times", once)
        fitted = steps.best if steps.best.notes else steps.last
        if calibration.tuning > 0 and differs and steps.error > FAR:
            changed = steps.best.changed(stack)
            program, plan = changed.final.program, changed.plan()
            tune_blocks(changed.original.program, program, plan, fitting, held_out, folder, calibration.tuning, tell)
            steps.take("tuned block by block", changed)
        if calibration.tuning > 0 and differs:
            changed = steps.best.changed(stack)
            module = changed.final.program.graph_module
            tune(original_module, module, changed.tunable, fitting, held_out, folder, calibration.tuning, tell)
            steps.take("tuned", changed)
        left = _left(original, networks[-1], steps, fitting, tell)
        evaluation = tuple(held_out[index] for index in range(min(EVALUATED, len(held_out))))
    chosen = steps.best
    final = with_what_stayed(chosen.final, [networks[-1], chosen.passes[-1]])
    for network, like_this in zip((*chosen.passes, final), (*networks[1:], networks[-1]), strict=True):
        set_modes(network, like_this)
    best = [stage.name for stage in steps.stages if stage.kept][-1]
    options = {**calibration.description, "inputs": batches.images, "held_out": held_out.images, "kept": best}
    options["output_error"] = " → ".join(f"{100 * stage.error:.3g} % {stage.name}" for stage in steps.stages)
    if few := too_few(*left, fitted.notes.values()):
        options["too_few"] = few
    if worse := [stage.name for stage in steps.stages if not stage.kept]:
        options["not_kept"] = f"{', '.join(worse)}: no better on what was held out"
    edits = tuple(edits_of(networks[-1], chosen.passes[-1], final, chosen.notes, fitted.refused))
    calibrated = {edit.path for edit in edits if edit.fate is Fate.CALIBRATED}  # what has no fit may yet be tuned
    skips = tuple(refusal_of(final, path, why) for path, why in fitted.refused.items() if path not in calibrated)
    diff = Diff(NAME, options, edits, skips, networks[-1].totals, final.totals)
    return Calibrated((*chosen.passes, final), diff, chosen.orders, tuple(steps.stages), evaluation)


def _left(
    original: Network, inherited: Network, steps: _Steps, fitting: Batches, tell: Progress
) -> tuple[float, float]:
    """Which part of the inherited weights' error is left, on inputs that were fitted to and on those held out."""
    if steps.best.final is inherited:
        return 1.0, 1.0
    some = fitting.first(EVALUATED)
    before, after = (_error(original, network, some, tell) for network in (inherited, steps.best.final))
    start = steps.stages[0].error
    return after / before if before else 1.0, steps.error / start if start else 1.0


@contextmanager
def _unwritten(program: Program) -> Iterator[None]:
    """Afterwards buffers that the graph itself writes into, such as a count of batches, are what they were."""
    buffers = [t for t in program.tensors.values() if not isinstance(t, nn.Parameter)]
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)


def in_new_order(original: Network, channels: Channels, orders: Orders, hidden: Ranks) -> Network:
    """A network that computes the same with its channels in another order, and knows what was measured of them."""
    program = replace(reordered(channels, orders), ranked=hidden.seen(channels, orders))
    return Network(program, original.anatomy)


def _check_order(original: Network, aligned: Network, batches: Batches) -> None:
    """A permutation is exact, or a bug.

    Raises:
        RewriteError: the network computes something else than before, beyond rounding.
    """
    figures = Figures()
    one, other = (values("the network", run(n.program.graph_module, batches[0])) for n in (original, aligned))
    figures.add(one, other)
    if not figures.relative_error <= rounding(original.program):
        raise RewriteError(
            f"calibration: channels in another order changed the output by {figures.relative_error:.2g} (relative): "
            "a bug; Calibration(..., order=False) goes without",
            code="bug",
        )


def _error(original: Network, other: Network, batches: Batches, tell: Progress) -> float:
    """Relative error of a network's output on all batches; infinite where it is not finite."""
    figures = Figures()
    for index, call in enumerate(batches):
        tell("comparing outputs", index, len(batches))
        expected = values("the original", run(original.program.graph_module, call))
        figures.add(expected, values("the rewritten network", run(other.program.graph_module, call)))
    error = figures.relative_error
    return error if math.isfinite(error) else math.inf
