"""A rewritten network fitted to its original on example inputs: order of channels, closed forms, then tuning."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..data import CalibrationImages, Sample
from ..data.calibration import FITTED
from ..diff import Diff, Edit, Refusal
from ..errors import RewriteError
from ..inputs import CallSpec, tensor_leaves
from ..network import Network
from ..program import Program
from ..surgery import origin
from ..survey import signature
from ..verification.figures import Figures
from ..verification.running import evaluating, rounding, run, values
from .batches import Batches, gather
from .channels import Channels, Orders, reordered
from .fitting import Fit
from .ordering import channel_orders
from .plan import Plan, Planner
from .streaming import Lockstep, Shelf, Stretch
from .tuning import Tuning, blocks

NAME = "calibration"
"""What the last diff of a calibrated result is called"""

EVALUATED = 4
"""How many calibration batches a result keeps to be verified on"""

SHOWN = 3
"""How many images a result keeps for people to look at"""

Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Calibration:
    """Example inputs, and what is done with them.

    Attributes:
        batches: an iterable of input tensors, or of tuples, lists or dicts of arguments.
        order: whether the channels that matter most are moved to where they are convolved.
        fit: whether layers are fitted in closed form.
        tuning: steps of Adam on every block afterwards; 0 for none.
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

    def samples(self, evaluation: Sequence[CallSpec]) -> list[Sample]:
        """Images for people to look at: further ones like those of the inputs, or else some of `evaluation`."""
        if isinstance(self.batches, CalibrationImages):
            return self.batches.samples(SHOWN)
        first = [list(tensor_leaves((call.args, dict(call.kwargs)))) for call in evaluation[:SHOWN]]
        images = [leaves[0][0] for leaves in first if len(leaves) == 1 and leaves[0].dim() == 4]
        return [Sample(f"input {index}", image.float(), source=FITTED) for index, image in enumerate(images, 1)]


@dataclass(frozen=True)
class Stage:
    """One step of a calibration: the output's relative error after it, on the calibration inputs."""

    name: str
    error: float


@dataclass(frozen=True)
class Calibrated:
    """What came out.

    Attributes:
        networks: after every pass, with channels in their new order; last, the one with the weights that did best.
        diff: what was fitted and moved, and what could not be.
        orders: the new order of channels.
        stages: every step that was taken.
        evaluation: some of the inputs, to verify on.
    """

    networks: tuple[Network, ...]
    diff: Diff
    orders: Orders
    stages: tuple[Stage, ...]
    evaluation: tuple[CallSpec, ...]


@dataclass(frozen=True)
class _Candidate:
    """The networks after every pass, and the last of them with other weights."""

    passes: Sequence[Network]
    final: Network
    orders: Orders


def calibrate(
    calibration: Calibration,
    networks: Sequence[Network],
    carry_out: Callable[[Network], Sequence[Network]],
    tell: Tell,
) -> Calibrated:
    """Fit the last of `networks`, the rewritten one, to the first, and keep the step after which the output is best.

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
        names, notes, reasons = ["inherited"], dict[str, str](), dict[str, str]()
        found = [_Candidate(networks[1:], networks[-1], {})]
        aligned = original
        if calibration.order:
            tell("choosing channels", 0, 1)
            channels = Channels(original.program)
            orders = channel_orders(channels, original, networks[-1], batches)
            if orders:
                aligned = Network(reordered(channels, orders), original.anatomy)
                stack.enter_context(evaluating(aligned.program.graph_module))
                _check_order(original, aligned, batches)
                passes = carry_out(aligned)
                names.append("channels chosen")
                found.append(_Candidate(passes, passes[-1], orders))
        for name, wanted in (("fitted", calibration.fit), ("tuned", calibration.tuning > 0)):
            if not wanted:
                continue
            changed = _copied(found[-1].final)
            stack.enter_context(evaluating(changed.program.graph_module))
            plan = Planner(aligned.program, changed, found[-1].passes[-1].program).make()
            if name == "fitted":
                notes, reasons = _fit(aligned, changed, plan, batches, folder, tell)
            else:
                _tune(aligned, changed, plan, batches, folder, calibration.tuning, tell)
            names.append(name)
            found.append(replace(found[-1], final=changed))
        errors = _errors(original, [candidate.final for candidate in found], batches, tell)
        evaluation = tuple(batches[index] for index in range(min(EVALUATED, len(batches))))
    best = min(range(len(found)), key=lambda index: (errors[index], index))
    stages = tuple(map(Stage, names, errors))
    chosen = found[best]
    final = _with_what_stayed(chosen.final, [networks[-1], chosen.passes[-1]])
    for changed, like_this in zip((*chosen.passes, final), (*networks[1:], networks[-1]), strict=True):
        _set_modes(changed, like_this)
    options = {**calibration.description, "inputs": batches.images, "kept": names[best]}
    options["output_error"] = " → ".join(f"{100 * stage.error:.3g} % {stage.name}" for stage in stages)
    edits = tuple(_edits(networks[-1], chosen.passes[-1], final, notes))
    skips = tuple(_refusal(final, path, reason) for path, reason in reasons.items())
    diff = Diff(NAME, options, edits, skips, networks[-1].totals, final.totals)
    return Calibrated((*chosen.passes, final), diff, chosen.orders, stages, evaluation)


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
            "a bug; Calibration(..., order=False) goes without"
        )


def _copied(network: Network) -> Network:
    """A network whose weights may be changed without changing another one's."""
    memo: dict[int, Any] = {}
    modules = {path: copy.deepcopy(module, memo) for path, module in network.program.modules.items()}
    return Network(replace(network.program, modules=modules), network.anatomy)


def _fit(
    original: Network, rewritten: Network, plan: Plan, batches: Batches, folder: Path, tell: Tell
) -> tuple[dict[str, str], dict[str, str]]:
    """Fit every layer in closed form, in execution order; what came of it, and why others were not, by path."""
    module, nodes = original.program.graph_module, list(original.program.graph.nodes)
    networks = Lockstep(
        Stretch("original", module, nodes, plan.wanted["original"]),
        Stretch("rewritten", rewritten.program.graph_module, plan.order, plan.wanted["rewritten"]),
        batches,
        Shelf(folder),
    )
    notes: dict[str, str] = {}
    for number, step in enumerate(plan.steps):
        tell(f"fitting {step.fit.paths[-1]}", number, len(plan.steps))
        notes |= dict.fromkeys(step.fit.paths, _fitted(step.fit, networks, number, step.original, step.rewritten))
    return notes, plan.reasons


def _fitted(fit: Fit, networks: Lockstep, number: int, original_upto: int, rewritten_upto: int) -> str:
    for index in range(fit.rounds):
        for batch in networks.step(number, original_upto, rewritten_upto):
            fit.observe(networks, batch)
        gain = fit.update(index == fit.rounds - 1)
        if gain is not None:
            return str(gain)
    raise AssertionError


def _tune(
    original: Network, rewritten: Network, plan: Plan, batches: Batches, folder: Path, steps: int, tell: Tell
) -> None:
    """Tune block after block, and keep of each what made its values come closer."""
    program, nodes = rewritten.program, list(original.program.graph.nodes)
    found = list(blocks(program, plan.order, plan.differing))
    place = {node.name: index for index, node in enumerate(nodes)}
    wanted: Mapping[str, dict[str, int]] = {"original": {}, "rewritten": {}}
    for number, block in enumerate(found):
        wanted["original"] |= {str(origin(node)): number for node in block.outputs}
        wanted["rewritten"] |= {node.name: number for node in block.inputs}
    networks = Lockstep(
        Stretch("original", original.program.graph_module, nodes, wanted["original"]),
        Stretch("rewritten", program.graph_module, plan.order, wanted["rewritten"]),
        batches,
        Shelf(folder),
    )
    rounds = max(1, math.ceil(steps / len(batches)))
    for number, block in enumerate(found):
        tuning = Tuning(program, plan.order, block, rounds * len(batches))
        upto = max(place[str(origin(node))] for node in block.outputs) + 1
        losses = [0.0, 0.0]
        for index in range(rounds + 2):
            tell(f"tuning up to {block.paths[-1]}", number * (rounds + 2) + index, len(found) * (rounds + 2))
            for batch in networks.step(number, upto, block.start):
                if 0 < index <= rounds:
                    tuning.step(networks, batch)
                else:
                    losses[index > 0] += float(tuning.loss(networks, batch))
        tuning.finish(better=losses[1] < losses[0])


def _errors(original: Network, others: Sequence[Network], batches: Batches, tell: Tell) -> list[float]:
    """Relative error of every network's output on all batches; infinite where it is not finite."""
    figures = [Figures() for _ in others]
    for index, call in enumerate(batches):
        tell("comparing outputs", index, len(batches))
        expected = values("the original", run(original.program.graph_module, call))
        for figure, network in zip(figures, others, strict=True):
            figure.add(expected, values("the rewritten network", run(network.program.graph_module, call)))
    errors = [figure.relative_error for figure in figures]
    return [error if math.isfinite(error) else math.inf for error in errors]


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


def _edits(inherited: Network, ordered: Network, final: Network, notes: Mapping[str, str]) -> list[Edit]:
    """The layers and tensors whose values are others than without calibration."""
    edits, seen = [], set[int]()
    for path, module in final.program.modules.items():
        if module is inherited.program.modules[path] or id(module) in seen or not module.state_dict():
            continue
        seen.add(id(module))
        moved = module is ordered.program.modules[path]
        note = "channels in another order" if moved else notes.get(path, "tuned")
        edits.append(_edit(final, path, signature(module), "reordered" if moved else "calibrated", note))
    for path, tensor in final.program.tensors.items():
        if tensor is not inherited.program.tensors[path]:
            short = f"{type(tensor).__name__}({'x'.join(map(str, tensor.shape))})"
            edits.append(_edit(final, path, short, "reordered", "channels in another order"))
    return edits


def _edit(network: Network, path: str, short: str, fate: str, note: str) -> Edit:
    stage = network.anatomy.stage_of(path)
    return Edit(path, stage.name if stage else None, short, short, 0, 0, fate, False, note)


def _refusal(network: Network, path: str, reason: str) -> Refusal:
    stage = network.anatomy.stage_of(path)
    return Refusal(path, stage.name if stage else None, signature(network.program.modules[path]), reason)
