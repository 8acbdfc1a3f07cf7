"""The stage rule: which role every unit plays in the one or several U-Nets that the main path runs through."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from .flow import SAME, Flow
from .levels import CONCATENATIONS
from .skips import LongSkip
from .units import Route, Visit
from .values import operation


@dataclass(frozen=True)
class Role:
    """What a unit is: a kind ("encoder", "up transition", ...), its number where it has one, and in which U-Net."""

    kind: str
    number: int | None = None
    shape: int = 0

    @property
    def label(self) -> str:
        return self.kind if self.number is None else f"{self.kind} {self.number}"

    @property
    def is_transition(self) -> bool:
        return self.kind in ("down transition", "up transition")


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
    labeller = _ShapeLabeller(route, merges, awaited, shapes)
    for index in range(len(shapes)):
        for visit, role in labeller.label(index):
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


class _ShapeLabeller:
    """Labels the visits of one U-Net after the other."""

    def __init__(
        self, route: Route, merges: Sequence[LongSkip], awaited: Sequence[LongSkip], shapes: list[list[Visit]]
    ):
        self.route = route
        self.all_merges = [merge.target for merge in merges]
        self.flow = route.flow
        self.shapes = shapes
        self.awaited = [merge.target for merge in awaited]
        self.joins = _joins_between_units(route)
        self.spatial = self.flow.weighted_in_calls(spatial=True)

    def label(self, index: int) -> Iterator[tuple[Visit, Role]]:
        visits = self.shapes[index]
        working = [visit for visit in visits if visit.works]
        if not working or not any(visit.changes_level for visit in visits):
            kind = "head" if index else "body" if len(self.shapes) == 1 else "stem"
            yield from ((visit, Role(kind, shape=index)) for visit in working)
            return
        turn = next((i for i, visit in enumerate(visits) if visit.goes_up), len(visits))
        can_end = any(visit.goes_up for visit in visits)
        contracting = _Contracting(self.flow, visits[:turn], max(visit.deepest for visit in visits), can_end, index)
        yield from contracting.label()
        if turn < len(visits):
            expanding = _Expanding(self, visits, turn, index, has_transitions=bool(contracting.transitions))
            yield from expanding.label()

    def merges_into(self, visits: list[Visit]) -> list[int]:
        """Sorted main-path positions where the expanding side of these visits takes in something from before."""
        last_up = max((visit.start for visit in visits if visit.goes_up), default=-1)
        joins = (position for position, source in self.joins if source >= last_up >= 0)
        return sorted({*self.awaited, *joins})


def _joins_between_units(route: Route) -> list[tuple[int, int]]:
    """Concatenations outside every unit, each with the last main-path position that another operand comes from."""
    flow = route.flow
    found = []
    for position, node in enumerate(flow.main):
        if position and route.visit_at[position].path is None and operation(node) in CONCATENATIONS:
            others = [flow.left[operand] for operand in flow.sources[node] if operand is not flow.main[position - 1]]
            if others:
                found.append((position, max(others)))
    return found


class _Contracting:
    """The side that goes down: stem, encoder stages with their transitions, and bottleneck."""

    def __init__(self, flow: Flow, visits: list[Visit], deepest: float, comes_up_again: bool, index: int):
        self.flow = flow
        self.visits = visits
        self.working = [visit for visit in visits if visit.works]
        self.deepest = deepest
        self.comes_up_again = comes_up_again
        self.goes_down = any(visit.goes_down for visit in visits)
        self.index = index
        self.stem = self._find_stem()
        self.transitions = self._find_transitions()

    def label(self) -> Iterator[tuple[Visit, Role]]:
        works_after_down = self._works_after_down()
        downs = 0
        for visit in self.visits:
            if visit is self.stem:
                yield visit, Role("stem", shape=self.index)
                continue
            if visit in self.transitions:
                yield visit, Role("down transition", shape=self.index)
            elif visit.works:
                at_bottom = not visit.goes_down and visit.entry >= self.deepest - SAME
                number = downs + (visit.goes_down or not works_after_down)
                if not self.goes_down:
                    yield visit, Role("body", shape=self.index)
                elif at_bottom and (self.comes_up_again or downs):
                    yield visit, Role("bottleneck", shape=self.index)
                elif number:
                    yield visit, Role("encoder", number, self.index)
                else:
                    yield visit, Role("stem", shape=self.index)
            downs += visit.goes_down

    def _find_stem(self) -> Visit | None:
        """The network's first unit, where it is a single convolution or shares its level with a later unit."""
        if self.index or not self.working:
            return None
        first, *others = self.working
        flat = first.entry == first.exit
        shares_level = flat and any(
            other.entry == other.exit == first.entry and not other.resamples_only for other in others
        )
        return first if first.convolutions <= 1 or shares_level else None

    def _find_transitions(self) -> set[Visit]:
        """Units that only resample, those left out that are alone in working at the level that they lead to."""
        stages = [visit for visit in self.working if visit is not self.stem and not visit.resamples_only]
        levels = {level for stage in stages for level in (stage.entry, stage.exit)}
        entries = {stage.entry for stage in stages if stage.exit < self.deepest}
        return {
            visit
            for visit in self.working
            if visit.resamples_only and visit is not self.stem and (visit.entry in levels or visit.exit in entries)
        }

    def _works_after_down(self) -> bool:
        """Whether the units that hold a change of resolution mostly do their work after it."""
        balance = 0
        for visit in self.working:
            if visit.changes_level and visit not in self.transitions and visit is not self.stem:
                before = _convolutions_at(self.flow, visit, visit.entry)
                after = _convolutions_at(self.flow, visit, visit.exit)
                balance += 1 if after >= before else -1
        return balance > 0


class _Expanding:
    """The side that goes up: decoder stages with their transitions, and what follows them.

    A decoder stage runs from the change of resolution to the first unit with two or more convolutions after that
    level's last merge, or to as many of them as the stage before has. A unit that holds the change begins a stage; one
    that works before it goes up ends the stage that a bare change has begun. After the last stage comes the head, or
    the bridge to the next U-Net.
    """

    def __init__(self, labeller: _ShapeLabeller, visits: list[Visit], turn: int, index: int, *, has_transitions: bool):
        self.flow = labeller.flow
        self.visits = visits[turn:]
        self.working = [visit for visit in self.visits if visit.works]
        self.index = index
        self.spatial = labeller.spatial
        self.merges = labeller.merges_into(visits)
        self.all_merges = labeller.all_merges
        self.end = visits[-1].end
        self.surface = min(visit.entry for visit in visits[: turn + 1])
        self.output = self._find_output()
        self.transitions = self._find_transitions()
        self.has_transitions = has_transitions or bool(self.transitions)
        works_until = max((i for i, visit in enumerate(self.visits) if visit.works), default=-1)
        self.last_up = max((i for i in range(works_until + 1) if self._starts_stage(self.visits[i])), default=-1)
        self.rest = Role("head" if index == len(labeller.shapes) - 1 else "bridge", shape=index)
        self.number = 0
        self.numbers: set[int] = set()
        self.closed = True
        self.unmerged = False
        self.begun_bare = False
        self.before = -1
        self.large = self.large_before = 0

    def label(self) -> Iterator[tuple[Visit, Role]]:
        remaining = len(self.working)
        for i, visit in enumerate(self.visits):
            starts = self._starts_stage(visit)
            ends = starts and self.begun_bare and self._works_before(visit)
            if starts and not ends:
                self._begin(bare=not visit.works or visit in self.transitions)
            if visit.works:
                remaining -= 1
                role = self._role(visit, more_ups=ends or i < self.last_up, is_last=not remaining)
                if role.kind == "decoder":
                    self.numbers.add(self.number)
                    self.begun_bare &= not self._is_large(visit)
                    if self._merges_between(self.before + 1, visit.end, of=self.all_merges):
                        self.large = 0
                    self.large += self._is_large(visit)
                self.before = visit.end
                yield visit, role
            if ends:
                self._begin(bare=True)

    def _begin(self, *, bare: bool) -> None:
        self.number += 1
        self.closed = self.unmerged = False
        self.begun_bare = bare
        self.large, self.large_before = 0, self.large

    def _works_before(self, visit: Visit) -> bool:
        """Whether a unit that goes up does most of its work before."""
        if not visit.works or visit in self.transitions:
            return False
        return _convolutions_at(self.flow, visit, visit.entry) > _convolutions_at(self.flow, visit, visit.exit)

    def _role(self, visit: Visit, *, more_ups: bool, is_last: bool) -> Role:
        decoder = Role("decoder", self.number, self.index)
        counted = 0 if self._merges_between(self.before + 1, visit.end, of=self.all_merges) else self.large
        large = self._is_large(visit) and (is_last or counted + 1 >= self.large_before)
        starts = self._starts_stage(visit)
        merges_inside = self._merges_between(visit.start, visit.end)
        if visit is self.output:
            return self.rest
        if visit in self.transitions:
            if visit.exit <= self.surface - SAME:  # beyond the size that it came from: super-resolution
                return Role("head", shape=self.index)
            if more_ups or (self.merges and self.merges[-1] >= visit.start + (not starts)):
                return Role("up transition", shape=self.index)
            self.closed = True
            return decoder
        if more_ups:
            return decoder
        if not self.closed and self._merges_between(visit.end + 1, self.end):
            self.unmerged |= not merges_inside and not self._last_merge_concatenates()
            self.closed = starts and large
            return decoder
        if self.closed and large and not is_last and self._concatenates_between(self.before, visit.start):
            return decoder
        if merges_inside and not starts:
            self.closed = large
            return decoder
        if self.closed or self.unmerged:
            return self.rest
        has_company = self.number in self.numbers or self.has_transitions
        if visit.convolutions <= 1 and is_last and not starts and has_company:
            return self.rest
        self.closed |= large
        return decoder

    def _is_large(self, visit: Visit) -> bool:
        return self.spatial[visit.key or ""] >= 2

    def _starts_stage(self, visit: Visit) -> bool:
        return visit is not self.output and visit.goes_up and visit.exit > self.surface - SAME

    def _find_output(self) -> Visit | None:
        """The last unit, if it convolves once and then only enlarges the result."""
        last = self.working[-1] if self.working else None
        enlarges = last is not None and last.goes_up and last.resamples_only
        if last is None or not enlarges or self._merges_between(last.start, self.end):
            return None
        return last if _convolutions_at(self.flow, last, last.entry) else None

    def _find_transitions(self) -> set[Visit]:
        """Units that only resample, those left out that are alone in working at the level that they lead to."""
        exits = {visit.exit for visit in self.working if not visit.resamples_only}
        transitions = {visit for visit in self.working if visit.resamples_only and visit.exit in exits}
        return transitions - {self.output}

    def _merges_between(self, first: int, last: int, *, of: Sequence[int] | None = None) -> bool:
        merges = self.merges if of is None else of
        return bisect_left(merges, first) < bisect_right(merges, last)

    def _concatenates_between(self, first: int, last: int) -> bool:
        between = self.merges[bisect_left(self.merges, first) : bisect_right(self.merges, last)]
        return any(operation(self.flow.main[merge]) in CONCATENATIONS for merge in between)

    def _last_merge_concatenates(self) -> bool:
        count = bisect_right(self.merges, self.end)
        return count > 0 and operation(self.flow.main[self.merges[count - 1]]) in CONCATENATIONS


def _convolutions_at(flow: Flow, visit: Visit, level: float) -> int:
    levels = ((flow.level[node], flow.weighted[node]) for node in visit.nodes)
    return sum(weighted for known, weighted in levels if known is not None and abs(known - level) < SAME)
