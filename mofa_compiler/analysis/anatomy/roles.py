"""The stage rule: which role every unit plays in the one or several U-Nets of the main path, and which beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from torch import fx

from .decoder_side import Expanding, Merges
from .encoder_side import Contracting
from .flow import NOWHERE, Flow, is_deeper
from .skips import Bypasses, LongSkip
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


def roles_aside(bypasses: Bypasses, skips: Sequence[LongSkip], roles: Mapping[str, Role]) -> Iterator[tuple[str, Role]]:
    """The role of every unit that has none on the main path.

    "conditioning" does not work on the image (another input, a pooled vector), "side input" reads the image itself, an
    "aux head" makes another output, "skip" works on a long skip connection; a "branch" belongs to the stage that it
    comes back to.
    """
    route = bypasses.route
    flow = route.flow
    last_up = max((visit.start for visit in route.visits if visit.goes_up), default=-1)
    last_skip = max((skip.target for skip in skips), default=-1)
    for path, nodes in sorted(route.members.items()):
        if path in roles or not any(flow.weighted[node] for node in nodes):
            continue
        leaves = max(flow.left[node] for node in nodes)
        joins = min(flow.feeds[node] for node in nodes)
        if leaves < 0 or all(flow.level[node] is None for node in nodes):
            yield path, Role("conditioning")
        elif joins == NOWHERE:
            yield path, Role("aux head")
        elif not bypasses.convolved[leaves]:
            yield path, Role("branch" if _in_first_stage(bypasses, joins, roles) else "side input")
        elif not _decodes(bypasses, nodes) and any(bypasses.long_source(node, joins) is not None for node in nodes):
            yield path, Role("skip")
        else:
            joined = route.visit_at[joins].path
            in_head = joined is None or (joined in roles and "head" in roles[joined].kind)
            past_decoders = joins >= last_up and joins > last_skip
            yield path, Role("aux head" if in_head and past_decoders else "branch")


def _decodes(bypasses: Bypasses, nodes: Sequence[fx.Node]) -> bool:
    """Whether a unit goes up itself and draws on the bottom and other levels: a decoder beside the main path."""
    levels = [level for node in nodes if (level := bypasses.route.flow.level[node]) is not None]
    drawn_on = {level for node in nodes for level in bypasses.departures[node]}
    bottom = max(level for level in bypasses.known if level is not None)
    return len(drawn_on) > 1 and bottom in drawn_on and is_deeper(levels[0], levels[-1])


def _in_first_stage(bypasses: Bypasses, position: int, roles: Mapping[str, Role]) -> bool:
    """Whether the main path has neither changed its level nor come to a second stage before a position."""
    visits = bypasses.route.visits
    before = {roles[path] for visit in visits if visit.start < position and (path := visit.path or "") in roles}
    return len(before) <= 1 and bypasses.known[position] == bypasses.known[0]
