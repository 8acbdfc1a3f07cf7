"""What a layer could become: lists of passes for it alone, made of what the passes themselves offer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ..analysis.layers import Layer
from ..analysis.network import Network
from ..base.errors import MofaError, RoadmapError, one_line
from ..rewriting.diff import Edit
from ..rewriting.engine import match_layer, tried
from ..rewriting.pass_api import Match, Pass, Phase
from ..rewriting.registry import available
from ..rewriting.roadmap import Roadmap, at_layers, in_order

ORIGINAL = "original"


@dataclass(frozen=True)
class Candidate:
    """Passes that are carried out one after the other on a layer, and a name for them."""

    name: str
    passes: tuple[Pass, ...] = ()

    def at(self, path: str) -> list[Pass]:
        """The passes for this layer, and for what earlier ones put below it."""
        return [replace(pass_, layers=at_layers([path])) for pass_ in self.passes]

    def then(self, pass_: Pass, name: str) -> Candidate:
        """One pass more; without a name, one that is not told of."""
        return Candidate(" + ".join(filter(None, (self.name if self.passes else "", name))), (*self.passes, pass_))


@dataclass(frozen=True)
class Attempt:
    """A candidate, and the network after it; or, in words, why that cannot be made."""

    candidate: Candidate
    network: Network | str


class Offers:
    """The passes that candidates are made of: a roadmap's, and those that are always offered.

    Args:
        roadmap: its passes, with their options, are what may be done; preparations were carried out before.
        engine: where the network will run: what cannot pay there is not tried unless the roadmap names it.
        bounded: whether a bound on the loss decides in the end.

    Raises:
        RoadmapError: a pass cannot be decided under a bound.
    """

    def __init__(self, roadmap: Roadmap, engine: str, *, bounded: bool = False):
        self.engine, self.bounded = engine, bounded
        self._named = {pass_.name for pass_ in roadmap}
        others = [
            kind.offer()
            for name, kind in available().items()
            if (kind.offered or (bounded and kind.offered_under_bound)) and name not in self._named
        ]
        passes = [one for one in in_order([*others, *roadmap]) if one.phase is not Phase.PREPARE]
        self.bypassing = [one for one in passes if bounded and type(one).bypasses is not Pass.bypasses]
        """Those that take parts of the network away, each of which is decided by itself"""
        whole = [one for one in passes if not one.per_layer and one not in self.bypassing]
        approximate = next((one.name for one in whole if one.phase is not Phase.LOWER), None)
        if bounded and approximate:
            raise RoadmapError(
                f"{approximate} changes the whole network, and max_loss picks layer by layer: leave one of them out"
            )
        self.whole = [one for one in whole if one.name in self._named or one.pays_on(engine)]
        """Those that are decided for the network as a whole"""
        self._rank = {one.name: index for index, one in reversed([*enumerate(passes)])}
        by_name: dict[str, list[Pass]] = {}
        for pass_ in passes:
            if pass_.per_layer:
                by_name.setdefault(pass_.name, []).append(pass_)
        self._kinds = list(by_name.values())

    def fitting(self, layer: Layer, network: Network) -> list[Pass]:
        """What takes a layer of the original as it is."""
        return [one for kind in self._starts for one in self._alternatives(kind, layer, network)]

    def attempts(self, layer: Layer, network: Network) -> Iterator[Attempt]:
        """All that a layer could become, the original first, without the forms that lowerings give to the others.

        Among equally fast ones the first is taken, so that what comes first is what changes least: what is always
        offered before what a roadmap has to ask for, what reduces a layer before what replaces it, and of those what
        this roadmap names.
        """
        original = Attempt(Candidate(ORIGINAL), network)
        yield original
        for start in self._starts:
            later = [kind for kind in self._kinds[self._kinds.index(start) + 1 :] if kind[0].phase is not Phase.LOWER]
            for one in self._further(original, start, layer).values():
                found = [one]
                for kind in later:
                    further = [(attempt, self._further(attempt, kind, layer)) for attempt in found]
                    found = [more.pop("", attempt) for attempt, more in further]
                    found += [new for _, more in further for new in more.values()]
                yield from found

    def forms(self, attempt: Attempt, layer: Layer) -> Iterator[Attempt]:
        """What was attempted in every form that a lowering gives to what it made."""
        for kind in self._kinds:
            if kind[0].phase is Phase.LOWER:
                yield from self._further(attempt, kind, layer).values()

    def merged(self, chosen: Mapping[Candidate, Iterable[str]]) -> list[Pass]:
        """One list of passes that makes of all layers what was chosen for each."""
        paths: dict[Pass, list[str]] = {}
        for candidate, layers in chosen.items():
            for pass_ in candidate.passes:
                paths.setdefault(pass_, []).extend(layers)
        ordered = sorted(paths, key=lambda pass_: self._rank[pass_.name])
        return [replace(one, layers=at_layers(paths[one])) for one in ordered]

    @property
    def _starts(self) -> list[list[Pass]]:
        def rank(kind: list[Pass]) -> tuple[bool, int, bool]:
            return not kind[0].offered, -kind[0].phase, kind[0].name not in self._named

        return sorted(self._kinds, key=rank)

    def _further(self, attempt: Attempt, kind: Sequence[Pass], layer: Layer) -> dict[str, Attempt]:
        """A candidate with one pass more, by what the pass is called; by nothing, where the pass costs no time."""
        network, done = attempt.network, attempt.candidate.passes
        if isinstance(network, str) or not _follows(kind[0], done):
            return {}
        found: dict[str, Attempt] = {}
        for pass_, name in self._alternatives(kind, layer, network).items():
            try:
                after, edits = tried(network, replace(pass_, layers=at_layers([layer.path])))
            except MofaError as error:
                found[name] = Attempt(attempt.candidate.then(pass_, name), one_line(error))
                continue
            if edits:
                name = "" if done and _costs_nothing(edits) else name
                found[name] = Attempt(attempt.candidate.then(pass_, name), after)
        return found

    def _alternatives(self, kind: Sequence[Pass], layer: Layer, network: Network) -> dict[Pass, str]:
        """The alternatives of one pass that fit a layer, or what stands there by now, with their names."""
        same = network.layers.get(layer.path)
        below = f"{layer.path}."
        there = [same] if same else [one for path, one in network.layers.items() if path.startswith(below)]
        fits: dict[Pass, bool] = {}
        for given in kind:
            for part in there:
                if not (given.looks_at(layer.path) or given.looks_at(part.path)):
                    continue
                for one in given.alternatives(part, network, bounded=self.bounded):
                    if one.pays_on(self.engine) or (one == given and one.name in self._named):
                        found = match_layer(part, replace(one, layers=("*",)), network)
                        fits[one] = fits.get(one, False) or isinstance(found, Match)
        return {one: name for one, name in _names(kind[0], list(fits)).items() if fits[one]}


def _follows(pass_: Pass, done: Sequence[Pass]) -> bool:
    """Whether a pass may work on what others made of a layer, or on the layer itself."""
    replaced = [one for one in done if one.phase is not Phase.NARROW or pass_.phase is Phase.LOWER]
    return not done or any(one.name in pass_.after for one in done) or any(one.phase < pass_.phase for one in replaced)


def _costs_nothing(edits: Sequence[Edit]) -> bool:
    """Whether only values of weights changed: such a pass is no choice to be made by time, it is always carried out."""
    return all(edit.before == edit.after and not edit.macs and not edit.parameters for edit in edits)


def _names(given: Pass, alternatives: Sequence[Pass]) -> dict[Pass, str]:
    """Alternatives of one pass, told apart by the options in which they differ."""
    values = [{**one.options, "layers": None} for one in alternatives]
    differing = [key for key in given.options if any(one[key] != values[0][key] for one in values)]
    names = {}
    for one, options in zip(alternatives, values, strict=True):
        details = [
            options[key] if isinstance(options[key], str) else f"{key}={options[key]}"
            for key in differing
            if isinstance(options[key], str) or options[key] != given.options[key]
        ]
        names[one] = f"{one.name} ({', '.join(details)})" if details else one.name
    return names
