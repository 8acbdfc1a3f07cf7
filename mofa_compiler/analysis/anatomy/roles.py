"""The stage rule: which role every unit plays in the one or several U-Nets that the main path runs through."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

from .decoder_side import Expanding, Merges
from .encoder_side import Contracting
from .flow import Flow
from .skips import LongSkip
from .types import Role
from .units import Route, Visit


def u_shapes(visits: list[Visit]) -> list[list[Visit]]:
    """The visits cut where the path goes down after having gone up: one part for each U-Net of a cascade."""
    shapes: list[list[Visit]] = [[]]
    rose = False
    for visit in visits:
        if visit.goes_down and rose:
            shapes.append([])
            rose = False
        shapes[-1].append(visit)
        rose |= visit.goes_up
    for earlier, later in pairwise(shapes):
        _hand_over_opening(earlier, later)
    return shapes


def _hand_over_opening(earlier: list[Visit], later: list[Visit]) -> None:
    """Where a U-Net starts with a bare change of resolution, the full-resolution unit before it is its first.

    Where no unit is that large (layers in a row), those before it in the same container are.
    """
    if later[0].path is not None and later[0].convolutions > 1:
        return
    last_up = max(i for i, visit in enumerate(earlier) if visit.goes_up)
    candidates = [i for i, visit in enumerate(earlier) if i >= last_up and visit.path is not None]
    large = [i for i in candidates if earlier[i].convolutions >= 2]
    container = (later[0].path or "").rpartition(".")[0]
    together = [i for i in candidates if container and (earlier[i].path or "").startswith(f"{container}.")]
    if len(large) > 1:
        opening = large[-1]
    elif not large and together and together[0] > last_up:
        opening = together[0]
    else:
        return
    later[:0] = earlier[opening:]
    del earlier[opening:]


def find_roles(
    route: Route, merges: Sequence[LongSkip], awaited: Sequence[LongSkip], shapes: list[list[Visit]]
) -> dict[str, Role]:
    """The role of every unit that convolves on the main path, by path, in execution order.

    `awaited` are those merges that decoder stages wait for.
    """
    roles: dict[str, list[Role]] = {}
    taken_in = Merges(route, merges, awaited)
    for index in range(len(shapes)):
        for visit, role in _label(route.flow, taken_in, shapes, index):
            if visit.path is not None:
                roles.setdefault(visit.path, []).append(role)
    _number_densely(roles)
    return {path: _most_frequent(candidates) for path, candidates in roles.items()}


def _number_densely(roles: dict[str, list[Role]]) -> None:
    """Number the stages of each U-Net from 1 without gaps: a level may have no unit of its own."""
    used: dict[tuple[str, int], set[int]] = {}
    for candidates in roles.values():
        for role in candidates:
            if role.number is not None:
                used.setdefault((role.kind, role.shape), set()).add(role.number)
    rank = {key: {old: new for new, old in enumerate(sorted(numbers), 1)} for key, numbers in used.items()}
    for candidates in roles.values():
        candidates[:] = [
            role if role.number is None else Role(role.kind, rank[role.kind, role.shape][role.number], role.shape)
            for role in candidates
        ]


def _most_frequent(candidates: list[Role]) -> Role:
    """The role that a unit plays in most visits; rather a stage than a transition, rather an early one."""
    count = Counter(role.label for role in candidates)
    return max(candidates, key=lambda role: (count[role.label], not role.is_transition))


def _label(flow: Flow, merges: Merges, shapes: list[list[Visit]], index: int) -> Iterator[tuple[Visit, Role]]:
    """The roles of the visits of one of the U-Nets."""
    visits = shapes[index]
    working = [visit for visit in visits if visit.works]
    if not working or not any(visit.changes_level for visit in visits):
        kind = "head" if index else "body" if len(shapes) == 1 else "stem"
        yield from ((visit, Role(kind, shape=index)) for visit in working)
        return
    turn = next((i for i, visit in enumerate(visits) if visit.goes_up), len(visits))
    comes_up_again = turn < len(visits)
    deepest = max(visit.deepest for visit in visits)
    contracting = Contracting(flow, visits[:turn], deepest, comes_up_again, index, merges.sources)
    yield from contracting.label()
    if comes_up_again:
        rest = Role("head" if index == len(shapes) - 1 else "bridge", shape=index)
        yield from Expanding(merges, visits, turn, rest, has_transitions=bool(contracting.transitions)).label()
