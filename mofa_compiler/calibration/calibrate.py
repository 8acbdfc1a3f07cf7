"""A rewritten network fitted to its original on example inputs: order of channels, closed forms, then tuning."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..analysis.channel_order import Orders, reordered
from ..analysis.channels import Channels
from ..analysis.layers import signature
from ..analysis.network import Network
from ..base.errors import RewriteError
from ..data import CalibrationImages, Sample
from ..data.calibration import HELD_OUT
from ..graph.call_spec import CallSpec, tensor_leaves
from ..graph.program import Program
from ..nn.partial_conv import PartialConv2d
from ..numerics.error_sums import Figures
from ..numerics.running import evaluating, rounding, run, values
from ..rewriting.diff import Diff, Edit, Refusal
from ..rewriting.fate import Fate
from ..rewriting.pass_api import Skip
from .batches import Batches, gather
from .block_tuning import tune_blocks
from .fit_base import Fit
from .hidden_ranks import Ranks, ranks
from .lockstep import Lockstep, Shelf, Stretch
from .ordering import channel_orders
from .plan import Plan, Planner
from .sufficiency import few_pixels, too_few
from .tuning import tune

NAME = "calibration"
"""What the last diff of a calibrated result is called"""

EVALUATED = 4
"""How many batches of what was not fitted to a result keeps to be verified on"""

SHOWN = 3
"""How many images a result keeps for people to look at"""

FAR = 0.05
"""Relative error of the output from which on blocks are tuned before the whole: the dense U-Net wins 1 dB by it"""

Tell = Callable[[str, int, int], None]

_TUNED = (nn.Conv2d, nn.ConvTranspose2d, PartialConv2d)


@dataclass(frozen=True)
class Calibration:
    """Example inputs, and what is done with them.

    Attributes:
        batches: an iterable of input tensors, or of tuples, lists or dicts of arguments.
        order: whether the channels that matter most are moved to where they are convolved.
        fit: whether layers are fitted in closed form.
        tuning: steps of gradient descent on the whole network afterwards, one image each, and before on every block,
            where the output is far from the original's; 0 for none.
    """

    batches: Iterable[Any]
    order: bool = True
    fit: bool = True
    tuning: int = 200

    @property
    def description(self) -> dict[str, Any]:
        """Plain data for reports: where the inputs come from, and the settings."""
        source = getattr(self.batches, "description", None)
        given = dict(source) if isinstance(source, Mapping) else {"source": "given"}
        return {**given, "order": self.order, "fit": self.fit, "tuning": self.tuning}

    def more(self) -> Calibration | None:
        """The same with more inputs, where further ones can be drawn; else None."""
        more = self.batches.more() if isinstance(self.batches, CalibrationImages) else None
        return None if more is None else replace(self, batches=more)

    def samples(self, evaluation: Sequence[CallSpec]) -> list[Sample]:
        """Images for people to look at: further ones like those of the inputs, or else some of `evaluation`."""
        if isinstance(self.batches, CalibrationImages):
            return self.batches.samples(SHOWN)
        first = [list(tensor_leaves((call.args, dict(call.kwargs)))) for call in evaluation[:SHOWN]]
        images = [leaves[0][0] for leaves in first if len(leaves) == 1 and leaves[0].dim() == 4]
        return [Sample(f"input {index}", image.float(), source=HELD_OUT) for index, image in enumerate(images, 1)]


@dataclass(frozen=True)
class Stage:
    """One step of a calibration: the output's relative error after it, on inputs that were held out of it.

    A step that left it no smaller was not kept: the next one started from where that one did.
    """

    name: str
    error: float
    kept: bool = True


@dataclass(frozen=True)
class Calibrated:
    """What came out.

    Attributes:
        networks: after every pass, with channels in their new order; last, the one with the weights that did best.
        diff: what was fitted and moved, and what could not be.
        orders: the new order of channels.
        stages: every step that was taken.
        evaluation: some of the inputs that were not fitted to, to verify on.
    """

    networks: tuple[Network, ...]
    diff: Diff
    orders: Orders
    stages: tuple[Stage, ...]
    evaluation: tuple[CallSpec, ...]


@dataclass(frozen=True)
class Candidate:
    """The networks after every pass, and the last of them with other weights.

    `original` has its channels in the order of `orders`. `notes` and `refused` say what came of fits, and why there are
    none, by path.
    """

    original: Network
    passes: Sequence[Network]
    final: Network
    orders: Orders
    notes: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, Skip] = field(default_factory=dict)

    def changed(self, stack: ExitStack) -> Candidate:
        """The same with weights of its own, in eval mode until the stack is left."""
        new = replace(self, final=_copied(self.final))
        stack.enter_context(evaluating(new.final.program.graph_module))
        return new

    def plan(self, *, repeated: bool = True) -> Plan:
        return Planner(self.original.program, self.final, self.passes[-1].program, repeated=repeated).make()

    @property
    def tunable(self) -> list[nn.Parameter]:
        """Those of the convolutions whose values may differ from the original's."""
        plan = self.plan()
        calls = [node for node in plan.order if node in plan.differing and node.op == "call_module"]
        modules = [self.final.program.modules[str(node.target)] for node in calls]
        tuned = [module for module in modules if isinstance(module, _TUNED)]
        parameters = (p for module in tuned for p in module.parameters() if p.is_floating_point())
        return list({id(parameter): parameter for parameter in parameters}.values())

    @property
    def repeats(self) -> bool:
        """Whether layers that are called several times are among those that can be fitted."""
        return len(self.plan(repeated=False).steps) < len(self.plan().steps)

    def fitted(
        self, batches: Batches, folder: Path, tell: Tell, *, repeated: bool = True, only: Container[str] | None = None
    ) -> Candidate:
        """Every layer fitted in closed form, in execution order; `repeated`: also those that are called several times.

        `only`: layers at these paths alone. Its weights are changed.
        """
        module, nodes = self.original.program.graph_module, list(self.original.program.graph.nodes)
        plan = self.plan(repeated=repeated)
        networks = Lockstep(
            Stretch("original", module, nodes, plan.wanted["original"]),
            Stretch("rewritten", self.final.program.graph_module, plan.order, plan.wanted["rewritten"]),
            batches,
            Shelf(folder),
        )
        notes: dict[str, str] = {}
        for number, step in enumerate(plan.steps):
            if only is not None and not any(path in only for path in step.fit.paths):
                continue
            tell(f"fitting {step.fit.paths[-1]}", number, len(plan.steps))
            note = _fitted(step.fit, networks, number, step.original, step.rewritten)
            note += few_pixels(step.fit.seen, step.fit.unknowns)
            notes |= dict.fromkeys(step.fit.paths, note)
        return replace(self, notes=notes, refused=plan.refused)


class _Steps:
    """What was tried, on inputs that nothing was fitted to: a step that is no better is not built on."""

    def __init__(self, original: Network, passes: Sequence[Network], held_out: Batches, tell: Tell):
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
    tell: Tell,
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
            orders = channel_orders(channels, original, networks[-1], fitting, hidden.kept)
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
    final = _with_what_stayed(chosen.final, [networks[-1], chosen.passes[-1]])
    for network, like_this in zip((*chosen.passes, final), (*networks[1:], networks[-1]), strict=True):
        _set_modes(network, like_this)
    best = [stage.name for stage in steps.stages if stage.kept][-1]
    options = {**calibration.description, "inputs": batches.images, "held_out": held_out.images, "kept": best}
    options["output_error"] = " → ".join(f"{100 * stage.error:.3g} % {stage.name}" for stage in steps.stages)
    if few := too_few(*left, fitted.notes.values()):
        options["too_few"] = few
    if worse := [stage.name for stage in steps.stages if not stage.kept]:
        options["not_kept"] = f"{', '.join(worse)}: no better on what was held out"
    edits = tuple(_edits(networks[-1], chosen.passes[-1], final, chosen.notes, fitted.refused))
    calibrated = {edit.path for edit in edits if edit.fate is Fate.CALIBRATED}  # what has no fit may yet be tuned
    skips = tuple(_refusal(final, path, why) for path, why in fitted.refused.items() if path not in calibrated)
    diff = Diff(NAME, options, edits, skips, networks[-1].totals, final.totals)
    return Calibrated((*chosen.passes, final), diff, chosen.orders, tuple(steps.stages), evaluation)


def _left(original: Network, inherited: Network, steps: _Steps, fitting: Batches, tell: Tell) -> tuple[float, float]:
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


def _copied(network: Network) -> Network:
    """A network whose weights may be changed without changing another one's."""
    memo: dict[int, Any] = {}
    modules = {path: copy.deepcopy(module, memo) for path, module in network.program.modules.items()}
    return Network(replace(network.program, modules=modules), network.anatomy)


def _fitted(fit: Fit, networks: Lockstep, number: int, original_upto: int, rewritten_upto: int) -> str:
    for index in range(fit.rounds):
        for batch in networks.step(number, original_upto, rewritten_upto):
            fit.observe(networks, batch)
        gain = fit.update(index == fit.rounds - 1)
        if gain is not None:
            return str(gain)
    raise AssertionError


def _error(original: Network, other: Network, batches: Batches, tell: Tell) -> float:
    """Relative error of a network's output on all batches; infinite where it is not finite."""
    figures = Figures()
    for index, call in enumerate(batches):
        tell("comparing outputs", index, len(batches))
        expected = values("the original", run(original.program.graph_module, call))
        figures.add(expected, values("the rewritten network", run(other.program.graph_module, call)))
    error = figures.relative_error
    return error if math.isfinite(error) else math.inf


def _with_what_stayed(network: Network, earlier: Sequence[Network]) -> Network:
    """A network in which modules that have the same values as earlier ones are these again."""
    modules = dict(network.program.modules)
    for path, module in modules.items():
        for other in earlier:
            if _same_state(module, other.program.modules[path]):
                modules[path] = other.program.modules[path]
                break
    return Network(replace(network.program, modules=modules), network.anatomy)


def _set_modes(network: Network, like: Network) -> None:
    """Put copies, which were made in eval mode, into the modes of what they are copies of."""
    for path, module in network.program.modules.items():
        for inner, other in zip(module.modules(), like.program.modules[path].modules(), strict=True):
            inner.training = other.training


def _same_state(one: nn.Module, other: nn.Module) -> bool:
    mine, theirs = one.state_dict(keep_vars=True), other.state_dict(keep_vars=True)
    return all(torch.equal(tensor, theirs[key]) for key, tensor in mine.items())


def _edits(
    inherited: Network, ordered: Network, final: Network, notes: Mapping[str, str], refused: Mapping[str, Skip]
) -> list[Edit]:
    """The layers and tensors whose values are others than without calibration."""
    edits, seen = [], set[int]()
    for path, module in final.program.modules.items():
        if module is inherited.program.modules[path] or id(module) in seen or not module.state_dict():
            continue
        seen.add(id(module))
        moved = module is ordered.program.modules[path]
        note = "channels in another order" if moved else notes.get(path, "tuned")
        if not moved and path not in notes and path in refused:
            note = f"tuned; not fitted: {refused[path].reason}"
        edits.append(_edit(final, path, signature(module), Fate.REORDERED if moved else Fate.CALIBRATED, note))
    for path, tensor in final.program.tensors.items():
        if tensor is not inherited.program.tensors[path]:
            short = f"{type(tensor).__name__}({'x'.join(map(str, tensor.shape))})"
            edits.append(_edit(final, path, short, Fate.REORDERED, "channels in another order"))
    return edits


def _edit(network: Network, path: str, short: str, fate: Fate, note: str) -> Edit:
    stage = network.anatomy.stage_of(path)
    return Edit(path, stage.name if stage else None, short, short, 0, 0, fate, False, note)


def _refusal(network: Network, path: str, why: Skip) -> Refusal:
    stage = network.anatomy.stage_of(path)
    layer = signature(network.program.modules[path])
    return Refusal(path, stage.name if stage else None, layer, why.code, why.reason)
