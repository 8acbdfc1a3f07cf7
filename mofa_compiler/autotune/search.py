"""Which layers to rewrite, how, and in which form: measured, layer group by layer group, then as a whole."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, islice

from torch import Tensor

from ..analysis.network import Network
from ..base.errors import EngineError
from ..base.progress import Forecast
from ..calibration import Calibrated
from ..graph.call_spec import CallSpec, tensors_by_position
from ..result.decisions import TOLD, Alternative, Comparison, Decision, Decisions
from ..result.quality import Bound, Quality
from ..rewriting.pass_api import Pass
from ..rewriting.roadmap import Roadmap, in_order
from ..rewriting.target import Target
from . import schedule
from .benchmark import Tell, Trials
from .candidates import ORIGINAL, Candidate, Offers
from .deployed import Deployed, Deployment
from .grouping import Group, forms_of, groups_of_bypasses, groups_of_layers
from .lowering_search import after_each, carried_out, faster_lowerings
from .subgraphs import Piece
from .track_record import ENOUGH, TrackRecord

LOWERED = "lowered alone"
DECIDED = "decided"


@dataclass(frozen=True)
class Choice:
    """What there is to choose from.

    Attributes:
        original: at the target's size.
        preparations: what is done to it before anything is chosen.
        network: what they make of it.
        call: inputs of that size.
        roadmap: what may be done.
        groups: layers that are decided together.
        measured: the alternatives of each group, the original first.
        exact: the exact passes that make the whole network faster.
        left: those that were measured and do not.
        trials: what measures.
        bypassing: the passes that take parts of it away.
        merged: the passes that make of layers what is chosen for them.
    """

    original: Network
    preparations: Sequence[Pass]
    network: Network
    call: CallSpec
    roadmap: Roadmap
    groups: Sequence[Group]
    measured: Sequence[Sequence[Alternative]]
    exact: Sequence[Pass]
    left: tuple[Comparison, ...]
    trials: Trials
    bypassing: Sequence[Pass]
    merged: Callable[[Mapping[Candidate, Sequence[str]]], list[Pass]]

    def made(self, picked: Sequence[Candidate]) -> Roadmap:
        """The roadmap that makes of every group what is picked for it."""
        by_candidate: dict[Candidate, list[str]] = {}
        gone = self.gone(picked)
        for group, candidate in zip(self.groups, picked, strict=True):
            if left := [path for path in group.paths if path not in gone]:
                by_candidate.setdefault(candidate, []).extend(left)
        return self.named(in_order([*self.merged(by_candidate), *self.exact]))

    def gone(self, picked: Sequence[Candidate]) -> set[str]:
        """Paths of what goes as part of something else."""
        chosen = zip(self.groups, picked, strict=True)
        return {path for group, candidate in chosen for path in group.goes_with(candidate)}

    def named(self, passes: Sequence[Pass]) -> Roadmap:
        """A roadmap of these passes."""
        return Roadmap(passes, self.roadmap.name, self.roadmap.description)

    def whole(self, passes: Roadmap) -> Roadmap:
        """The same from the original on: what only offers others more to choose from is done where they are chosen."""
        chosen = passes.by_phase[1]
        return self.named([*(one for one in self.preparations if chosen or one.keeps_output), *passes])


@dataclass(frozen=True)
class Picked:
    """One alternative a group.

    Attributes:
        candidates: the alternatives.
        reasons: why each was picked, in a line.
        calibrated: the network with them, where it was calibrated to be judged.
        quality: what came of the bound, where there was one.
        worths: of every group's alternatives, by name, what the network is worth with that alone.
    """

    candidates: tuple[Candidate, ...]
    reasons: tuple[str, ...]
    calibrated: Calibrated | None = None
    quality: Quality | None = None
    worths: tuple[Mapping[str, float], ...] = ()


@dataclass(frozen=True)
class Decided:
    """A roadmap whose passes name the layers that they are for, the decisions behind it, and the calibrated network."""

    roadmap: Roadmap
    decisions: Decisions
    calibrated: Calibrated | None = None


def told(network: Network, roadmap: Roadmap, call: CallSpec, quality: Quality | None, tell: Tell) -> Decisions:
    """What came of a roadmap that is carried out as it stands: its time on the target, and its quality.

    Args:
        network: the original, captured on inputs of the target's shape.
        roadmap: what was done, with a `target`.
        call: those inputs.
        quality: on held-out inputs, where there are any.
        tell: told before every step.

    Raises:
        EngineError: the engine is not there, or does not take the original.
    """
    trials, inputs = trials_of(network, roadmap, call)
    tell("measuring the whole network", 0, 1)
    found = trials.networks({ORIGINAL: network, TOLD: carried_out(network, roadmap)}, inputs) if len(roadmap) else []
    return Decisions(trials.conditions, (), tuple(found), TOLD if found else ORIGINAL, quality)


def trials_of(network: Network, roadmap: Roadmap, call: CallSpec) -> tuple[Trials, Sequence[Tensor]]:
    """What measures on a roadmap's target, and the tensors of a call."""
    inputs = tensors_by_position(network.program.graph_module, call)
    assert roadmap.target is not None
    return Trials(roadmap.target, ", ".join("x".join(map(str, x.shape)) for x in inputs)), inputs


def survey(
    network: Network,
    roadmap: Roadmap,
    call: CallSpec,
    forecast: Forecast,
    *,
    bounded: bool = False,
    until: float = math.inf,
) -> Choice:
    """Measure what each layer of a network could become, for a roadmap with a target.

    Args:
        network: the original, captured on inputs of the target's shape.
        roadmap: what may be done, with a `target`.
        call: those inputs.
        forecast: of the phases in `schedule.PHASES`.
        bounded: whether a bound on the loss decides in the end.
        until: when, by `time.monotonic`, nothing new is measured: what is left stays as it is.

    Raises:
        EngineError: the engine is not there, or does not take the original.
    """
    target = roadmap.target
    assert target is not None
    original, preparations = network, roadmap.by_phase[0]
    network = carried_out(network, preparations)
    trials, inputs = trials_of(network, roadmap, call)
    offers = Offers(roadmap, target.engine, bounded=bounded)
    forecast.expect("lowerings", lambda: trials.rates.of_pieces(schedule.BLOCKS) + trials.rates.spent_on_whole)
    exact, left = faster_lowerings(network, offers.whole, trials, inputs, forecast.phase("lowerings"))
    tell = forecast.phase("alternatives")
    groups = [*groups_of_layers(network, offers, exact, tell, until), *groups_of_bypasses(network, offers, exact)]
    groups.sort(key=lambda group: -group.work)
    seconds: Callable[[], float] = lambda: trials.rates.of_pieces(_timed(groups))  # noqa: E731
    forecast.expect("forms", lambda: schedule.FORMS * seconds())
    forecast.expect("race", lambda: trials.rates.of_whole_networks(3 if exact else 2))
    tell = forecast.phase("pieces", seconds)
    if target.keep_if == "faster":
        groups = _promising(groups, trials, tell)
    measured = [*_measured(groups, [group.pieces for group in groups], trials, tell, until)]
    tell, forms = forecast.phase("forms"), []
    for index, group in enumerate(groups):
        tell(f"forms of {group.paths[0]}", index, 2 * len(groups))
        forms.append(forms_of(offers, group, measured[index], exact) if time.monotonic() < until else {})
    raced = [{**dict(islice(group.pieces.items(), 1)), **more} for group, more in zip(groups, forms, strict=True)]
    second: Tell = lambda step, done, total: tell(step, total + done, 2 * total)  # noqa: E731
    for index, found in enumerate(_measured(groups, raced, trials, second, until)):
        measured[index] += found[1:]
        groups[index] = replace(groups[index], pieces={**groups[index].pieces, **forms[index]}, attempts=())
    return Choice(
        original,
        preparations,
        network,
        call,
        roadmap,
        groups,
        measured,
        exact,
        left,
        trials,
        offers.bypassing,
        offers.merged,
    )


def fastest(choice: Choice) -> Picked:
    """Of every group what takes least time, whatever is lost by it."""
    target = choice.roadmap.target
    assert target is not None
    found = [_fastest(group, times, target) for group, times in zip(choice.groups, choice.measured, strict=True)]
    return Picked(tuple(candidate for candidate, _ in found), tuple(reason for _, reason in found))


def decide(
    choice: Choice,
    picked: Mapping[str, Picked],
    forecast: Forecast,
    deployment: Deployment | None = None,
    bound: Bound | None = None,
) -> dict[str, Decided]:
    """Race networks as a whole, the original and its exact lowerings among them, and keep of each what is fastest.

    `deployment`: what is worth too little there, by the bound, is not kept.

    Returns, by the names of `picked`: a roadmap that is decided.
    """
    target, network = choice.roadmap.target, choice.original
    assert target is not None
    forecast.phase("race")("measuring the whole network", 0, 1)
    made = {name: choice.whole(choice.made(one.candidates)) for name, one in picked.items()}
    made[LOWERED] = choice.whole(choice.named(choice.exact))
    made[ORIGINAL] = choice.named(())
    contestants = {ORIGINAL: network}
    contestants |= {name: carried_out(network, passes) for name, passes in made.items() if len(passes)}
    inputs = tensors_by_position(network.program.graph_module, choice.call)
    deployed = {} if deployment is None or bound is None else _deployed(deployment, bound, made, contestants, picked)
    engines = {name: one.engine for name, one in deployed.items()}
    compared = {one.name: one for one in choice.trials.networks(contestants, inputs, engines=engines)}
    found = {}
    for name, one in picked.items():
        rivals = [compared[rival] for rival in (name, LOWERED) if rival in compared]
        if deployed:
            rivals = [rival for rival in rivals if rival.name in deployed and deployed[rival.name].holds]
        best = min((rival for rival in rivals if rival.is_faster), key=lambda rival: rival.ratio, default=None)
        kept = best.name if best is not None else ORIGINAL
        if target.keep_if == "always":
            kept = name
        networks = (
            *(replace(rival, name=DECIDED if rival.name == name else rival.name) for rival in rivals),
            *choice.left,
        )
        decisions = Decisions(
            choice.trials.conditions,
            tuple(_decisions(choice, one)),
            networks,
            DECIDED if kept == name else kept,
            deployed[kept].quality if kept in deployed else one.quality if kept == name else None,
            deployed[kept].floating if kept in deployed else (),
        )
        found[name] = Decided(made[kept], decisions, one.calibrated if kept == name else None)
    return found


def _deployed(
    deployment: Deployment,
    bound: Bound,
    made: Mapping[str, Roadmap],
    contestants: Iterable[str],
    picked: Mapping[str, Picked],
) -> dict[str, Deployed]:
    """What each network is worth in the target's precision, with the weights that it would have."""
    found = {}
    for name in contestants:
        calibrated = picked[name].calibrated if name in picked else None
        if calibrated is None:
            network = carried_out(deployment.network, made[name])
        else:
            _, _, lowerings = made[name].by_phase
            network = after_each(calibrated.networks[-1], lowerings)[-1]
        try:
            found[name] = deployment.settled(network, bound)
        except EngineError:  # the race leaves it out, too
            if name == ORIGINAL:
                raise
    return found


def _decisions(choice: Choice, picked: Picked) -> Iterator[Decision]:
    """What was picked for every group, and what for."""
    worths = picked.worths or ({},) * len(choice.groups)
    chosen = zip(picked.candidates, picked.reasons, worths, strict=True)
    for group, times, (candidate, reason, worth) in zip(choice.groups, choice.measured, chosen, strict=True):
        alternatives = tuple(replace(one, worth=worth.get(one.name)) for one in times)
        yield Decision(group.paths, group.what, candidate.name, reason, alternatives)


def _timed(groups: Sequence[Group]) -> int:
    """How many pieces will be timed, about."""
    first, later = (sum(map(_number, some)) for some in (groups[:ENOUGH], groups[ENOUGH:]))
    return first + round(schedule.LATER * later)


def _number(group: Group) -> int:
    """How many pieces of a group there are to time."""
    return sum(isinstance(piece, Piece) for piece in group.pieces.values())


def _promising(groups: Sequence[Group], trials: Trials, tell: Tell) -> list[Group]:
    """The groups, with words in the place of alternatives that cannot be faster than the original."""
    left = trials.promising([{c.name: piece for c, piece in group.pieces.items()} for group in groups], tell)
    return [
        replace(group, pieces=dict(zip(group.pieces, pieces.values(), strict=True)))
        for group, pieces in zip(groups, left, strict=True)
    ]


def _measured(
    groups: Sequence[Group],
    pieces: Sequence[Mapping[Candidate, Piece | str]],
    trials: Trials,
    tell: Tell,
    until: float,
) -> Iterator[list[Alternative]]:
    """What was measured of each group's alternatives, the original first; compiled many at once."""
    named = [{candidate.name: piece for candidate, piece in some.items()} for some in pieces]
    record, ready, done = TrackRecord(), 0, [0, *accumulate(map(len, named))]
    hopeful = record.hopeful if trials.target.keep_if == "faster" else dict[str, Piece | str]
    for index, (group, some) in enumerate(zip(groups, named, strict=True)):
        if len(some) < 2 or time.monotonic() > until:
            yield [Alternative(name, problem="" if name == ORIGINAL else "no time was left for it") for name in some]
            continue
        if index >= ready:
            sizes = accumulate(len(other) for other in named[index:])
            ready = index + 1 + sum(size < trials.engine.at_once for size in sizes)
            prepared = [hopeful(other) for other in named[index:ready] if len(other) > 1]
            trials.prepare(prepared, lambda step, *_, index=index: tell(step, done[index], done[-1]))
        tell(f"measuring {group.paths[0]}", done[index], done[-1])
        found = trials.pieces(hopeful(some))
        record.add(found)
        yield found


def _fastest(group: Group, found: Sequence[Alternative], target: Target) -> tuple[Candidate, str]:
    """What takes least time beyond the noise; of those that take as little, the first that was offered."""
    by_name = {candidate.name: candidate for candidate in group.pieces}
    original = by_name[ORIGINAL]
    timed = [(one, one.ratio, one.interval) for one in found if one.ratio is not None and one.interval is not None]
    if not timed or timed[0][0].name != ORIGINAL:
        return original, "could not be measured"
    faster = [(one, ratio, interval) for one, ratio, interval in timed[1:] if interval[1] < 1]
    if target.keep_if == "always":
        faster = timed[1:]
    if not faster:
        return original, "nothing is faster beyond the noise"
    _, _, best = min(faster, key=lambda entry: entry[1])
    picked, ratio, _ = next(entry for entry in faster if entry[1] <= best[1])
    return by_name[picked.name], f"{ratio:.2f} of the original's time"
