"""Which layers to rewrite, how, and in which form: measured, layer group by layer group, then as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from ..analysis.anatomy import infer
from ..analysis.layers import Layer, signature
from ..analysis.network import Network
from ..base.errors import MofaError, one_line
from ..frontend import capture
from ..graph.call_spec import CallSpec, tensors_by_position
from ..result.decisions import Alternative, Decision, Decisions
from ..rewriting.pass_api import Pass
from ..rewriting.roadmap import Roadmap, in_order
from ..rewriting.target import Target
from .benchmark import NEAR, Tell, Trials
from .candidates import ORIGINAL, Attempt, Candidate, Offers
from .lowering_search import carried_out, faster_lowerings
from .subgraphs import Piece, Region, extract, piece_around

LOWERED = "lowered alone"
DECIDED = "decided"


@dataclass(frozen=True)
class Group:
    """Layers that are alike, the piece of the network around one of them, and what could be made of it."""

    layers: tuple[Layer, ...]
    region: Region
    pieces: Mapping[Candidate, Piece | str]
    """Every alternative as a module with its inputs, the original first; or why there is none"""

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(layer.path for layer in self.layers)


@dataclass(frozen=True)
class Choice:
    """What there is to choose from.

    Attributes:
        network: the original.
        groups: layers that are decided together.
        measured: the alternatives of each group, the original first.
        made: the roadmap that makes of every group what is picked for it.
    """

    network: Network
    groups: Sequence[Group]
    measured: Sequence[Sequence[Alternative]]
    made: Callable[[Sequence[Candidate]], Roadmap]


@dataclass(frozen=True)
class Decided:
    """A roadmap whose passes name the layers that they are for, and the decisions behind it."""

    roadmap: Roadmap
    decisions: Decisions


def decide(
    network: Network,
    roadmap: Roadmap,
    call: CallSpec,
    tell: Tell,
    bound: Callable[[Choice], Sequence[Candidate]] | None = None,
) -> Decided:
    """Turn a roadmap for a target into one that is decided.

    Args:
        network: the original, captured on inputs of the target's shape.
        roadmap: what may be done, with a `target`.
        call: those inputs.
        tell: told before every step.
        bound: picks under a bound on the loss, where not simply the fastest is wanted.

    Raises:
        EngineError: the engine is not there, or does not take the original.
    """
    target = roadmap.target
    assert target is not None
    inputs = tensors_by_position(network.program.graph_module, call)
    trials = Trials(target, ", ".join("x".join(map(str, x.shape)) for x in inputs))
    offers = Offers(roadmap, target.engine, bounded=bound is not None)
    exact, left = faster_lowerings(network, offers.whole, trials, inputs, tell)
    groups = list(_groups(network, offers, exact, tell))
    if target.keep_if == "faster":
        groups = _promising(groups, trials, tell)
    measured = [*_measured(groups, [group.pieces for group in groups], trials, tell)]
    forms = []
    for index, group in enumerate(groups):
        tell(f"forms of {group.paths[0]}", index, len(groups))
        forms.append(_forms(network, offers, group, measured[index], exact))
    raced = [{**dict(islice(group.pieces.items(), 1)), **more} for group, more in zip(groups, forms, strict=True)]
    for index, found in enumerate(_measured(groups, raced, trials, tell)):
        measured[index] += found[1:]
        groups[index] = replace(groups[index], pieces={**groups[index].pieces, **forms[index]})

    def made(picked: Sequence[Candidate]) -> Roadmap:
        by_candidate: dict[Candidate, list[str]] = {}
        for group, candidate in zip(groups, picked, strict=True):
            by_candidate.setdefault(candidate, []).extend(group.paths)
        return Roadmap(in_order([*offers.merged(by_candidate), *exact]), roadmap.name, roadmap.description)

    if bound is None:
        picked = [_fastest(group, found, target) for group, found in zip(groups, measured, strict=True)]
    else:
        chosen = bound(Choice(network, groups, measured, made))
        picked = [(candidate, "cheapest gain per dB first") for candidate in chosen]
    decided = made([candidate for candidate, _ in picked])
    tell("measuring the whole network", 0, 1)
    contestants = {ORIGINAL: network, DECIDED: carried_out(network, decided)}
    if exact:
        contestants[LOWERED] = carried_out(network, exact)
    compared = {one.name: one for one in trials.networks(contestants, inputs)}
    best = min((one for one in compared.values() if one.is_faster), key=lambda one: one.ratio, default=None)
    name = best.name if best is not None else ORIGINAL
    if target.keep_if == "always":
        name = DECIDED
    alone = Roadmap(exact, roadmap.name, roadmap.description)
    final = {DECIDED: decided, LOWERED: alone}.get(name, Roadmap((), roadmap.name, roadmap.description))
    layers = tuple(
        Decision(group.paths, signature(group.layers[0].module), candidate.name, reason, tuple(found))
        for group, (candidate, reason), found in zip(groups, picked, measured, strict=True)
    )
    return Decided(final, Decisions(trials.conditions, layers, (*compared.values(), *left), name))


def _promising(groups: Sequence[Group], trials: Trials, tell: Tell) -> list[Group]:
    """The groups, with words in the place of alternatives that cannot be faster than the original."""
    left = trials.promising([{c.name: piece for c, piece in group.pieces.items()} for group in groups], tell)
    return [
        replace(group, pieces=dict(zip(group.pieces, pieces.values(), strict=True)))
        for group, pieces in zip(groups, left, strict=True)
    ]


def _measured(
    groups: Sequence[Group], pieces: Sequence[Mapping[Candidate, Piece | str]], trials: Trials, tell: Tell
) -> Iterator[list[Alternative]]:
    """What was measured of each group's alternatives, the original first."""
    named = [{candidate.name: piece for candidate, piece in some.items()} for some in pieces]
    trials.prepare([some for some in named if len(some) > 1], tell)
    for index, (group, some) in enumerate(zip(groups, named, strict=True)):
        tell(f"measuring {group.paths[0]}", index, len(groups))
        yield trials.pieces(some) if len(some) > 1 else [Alternative(ORIGINAL)]


def _groups(network: Network, offers: Offers, exact: Sequence[Pass], tell: Tell) -> Iterator[Group]:
    """Layers by what stands around them and what may be done to them; one of each with all its alternatives."""
    alike: dict[tuple[object, ...], list[Layer]] = {}
    where: dict[str, Region] = {}
    for layer in network.layers.values():
        fitting = tuple(offers.fitting(layer, network))
        reached = {path for one in fitting for path in one.reach(layer, network)}
        cut = piece_around(layer, network, reached) if fitting else None
        if cut is None:
            continue
        where[layer.path], piece = cut
        alike.setdefault((piece.fingerprint, fitting, layer.in_transition), []).append(layer)
    for index, layers in enumerate(alike.values()):
        tell(f"alternatives of {layers[0].path}", index, len(alike))
        around = where[layers[0].path]
        pieces: dict[Candidate, Piece | str] = {}
        seen: set[str] = set()
        for attempt in offers.attempts(layers[0], network):
            found = _piece(attempt, around, exact)
            if isinstance(found, Piece):
                if found.fingerprint in seen:
                    continue
                seen.add(found.fingerprint)
            pieces[attempt.candidate] = found
        if len(pieces) > 1:
            yield Group(tuple(layers), around, pieces)


def _forms(
    network: Network, offers: Offers, group: Group, found: Sequence[Alternative], exact: Sequence[Pass]
) -> dict[Candidate, Piece | str]:
    """The forms of those alternatives that are near enough to the fastest for a form to make up for it."""
    ratios = {one.name: one.ratio for one in found if one.ratio is not None}
    limit = NEAR * min(ratios.values(), default=0.0)
    near = [one for one in group.pieces if ratios.get(one.name, limit + 1) <= limit]
    forms = [form for one in near for form in offers.forms(one, group.layers[0], network)]
    return {form.candidate: _piece(form, group.region, exact) for form in forms if form.candidate not in group.pieces}


def _piece(attempt: Attempt, around: Region, exact: Sequence[Pass]) -> Piece | str:
    """The piece around a layer after what was attempted there; text where that failed."""
    if isinstance(attempt.network, str):
        return attempt.network
    try:
        found = extract(attempt.network.program, around)
        if found is None:
            return "what stands there cannot be cut out of the network"
        if exact:
            program = capture(found.module, found.inputs, compare=False)
            found = replace(found, program=carried_out(Network(program, infer(program)), exact).program)
        return found
    except MofaError as error:
        return one_line(error)


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
