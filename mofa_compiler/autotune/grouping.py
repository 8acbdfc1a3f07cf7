"""Layers that are decided together, the piece of the network around them, and what could be made of it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ..analysis.anatomy import infer
from ..analysis.layers import Layer, signature
from ..analysis.network import Network
from ..base.errors import MofaError, one_line
from ..frontend import capture
from ..result.decisions import Alternative
from ..rewriting.pass_api import Bypass, Pass
from .benchmark import NEAR, Tell
from .candidates import ORIGINAL, Attempt, Candidate, Offers
from .lowering_search import carried_out
from .subgraphs import Piece, Region, extract, piece_around


@dataclass(frozen=True)
class Group:
    """Layers that are alike, the piece of the network around one of them, and what could be made of it.

    Attributes:
        layers: these; none where it is another part of the network that could go.
        region: where the piece is.
        pieces: every alternative as a module with its inputs, the original first; or why there is none.
        bypass: that other part.
        attempts: the networks with what was attempted at the first of the layers.
    """

    layers: tuple[Layer, ...]
    region: Region
    pieces: Mapping[Candidate, Piece | str]
    bypass: Bypass | None = None
    attempts: tuple[Attempt, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.bypass.path,) if self.bypass else tuple(layer.path for layer in self.layers)

    @property
    def work(self) -> float:
        """Multiply-accumulates of the pieces around all layers."""
        first = next(iter(self.pieces.values()))
        return first.work * len(self.paths) if isinstance(first, Piece) else 0.0

    @property
    def what(self) -> str:
        """One of them in words."""
        return self.bypass.what if self.bypass else signature(self.layers[0].module)

    def goes_with(self, candidate: Candidate) -> tuple[str, ...]:
        """Paths of what is not there any longer, where a candidate takes a part of the network away."""
        return self.bypass.gone if self.bypass and candidate.passes else ()


def groups_of_layers(
    network: Network, offers: Offers, exact: Sequence[Pass], tell: Tell, until: float
) -> Iterator[Group]:
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
        if time.monotonic() > until:
            return
        tell(f"alternatives of {layers[0].path}", index, len(alike))
        around = where[layers[0].path]
        pieces: dict[Candidate, Piece | str] = {}
        seen: set[str] = set()
        attempts = []
        for attempt in offers.attempts(layers[0], network):
            found = _piece(attempt, around, exact)
            if isinstance(found, Piece):
                if found.fingerprint in seen:
                    continue
                seen.add(found.fingerprint)
            pieces[attempt.candidate] = found
            attempts.append(attempt)
        if len(pieces) > 1:
            yield Group(tuple(layers), around, pieces, attempts=tuple(attempts))


def groups_of_bypasses(network: Network, offers: Offers, exact: Sequence[Pass]) -> Iterator[Group]:
    """Parts of the network that could go, each against nothing."""
    for pass_ in offers.bypassing:
        for one in pass_.bypasses(network):
            region = Region(one.source, one.value)
            nothing = Region(one.source, one.source)
            pieces = {
                Candidate(ORIGINAL): _piece(Attempt(Candidate(ORIGINAL), network), region, exact),
                Candidate(pass_.name, (one.by,)): _piece(Attempt(Candidate(ORIGINAL), network), nothing, exact),
            }
            if all(isinstance(piece, Piece) for piece in pieces.values()):
                yield Group((), region, pieces, one)


def forms_of(
    offers: Offers, group: Group, found: Sequence[Alternative], exact: Sequence[Pass]
) -> dict[Candidate, Piece | str]:
    """The forms of those alternatives that are near enough to the fastest for a form to make up for it."""
    if not group.layers:
        return {}
    ratios = {one.name: one.ratio for one in found if one.ratio is not None}
    limit = NEAR * min(ratios.values(), default=0.0)
    near = [one for one in group.attempts if ratios.get(one.candidate.name, limit + 1) <= limit]
    forms = [form for one in near for form in offers.forms(one, group.layers[0])]
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
