"""The side of a U-Net that goes up: decoder stages with their transitions, and what follows them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

from .levels import CONCATENATIONS, SAME
from .skips import LongSkip
from .types import Role
from .units import Route, Visit, convolutions_at
from .values import operation


class Merges:
    """Where the expanding sides take something in from before, as main-path positions in ascending order.

    Attributes:
        all: ends of long skip connections.
        sources: where they leave.
        joins: concatenations outside every unit, and the ends of long skip connections.
        spatial: convolutions of every call that do not work on pooled vectors, by call key.
    """

    def __init__(self, route: Route, merges: Sequence[LongSkip], awaited: Sequence[LongSkip]):
        self.route = route
        self.flow = route.flow
        self.all = [merge.target for merge in merges]
        self.sources = sorted(merge.source for merge in merges)
        self.spatial = self.flow.weighted_in_calls(spatial=True)
        self._awaited = [merge.target for merge in awaited]
        self._joins = self._find_joins()
        self.joins = sorted({*self.all, *(position for position, _ in self._joins)})

    def awaited(self, visits: Sequence[Visit]) -> list[int]:
        """The merges that the decoder stages of one U-Net wait for."""
        last_up = max((visit.start for visit in visits if visit.goes_up), default=-1)
        joins = (position for position, source in self._joins if source >= last_up >= 0)
        return sorted({*self._awaited, *joins})

    def _find_joins(self) -> list[tuple[int, int]]:
        """Concatenations outside every unit, each with the last main-path position that another operand comes from."""
        main, left = self.flow.main, self.flow.left
        found = []
        for position, node in enumerate(main):
            if position and self.route.visit_at[position].path is None and operation(node) in CONCATENATIONS:
                others = [left[operand] for operand in self.flow.sources[node] if operand is not main[position - 1]]
                if others:
                    found.append((position, max(others)))
        return found


class Expanding:
    """The side that goes up: decoder stages with their transitions, and what follows them.

    A decoder stage runs from the change of resolution to the first unit with two or more convolutions after that
    level's last merge, or to as many of them as the stage before has. A unit that holds the change begins a stage; one
    that works before it goes up ends the stage that a bare change has begun. After the last stage comes the head, or
    the bridge to the next U-Net.

    Attributes, of the stage that the labelling has come to:
        number: how many have begun.
        begun_bare: whether a change alone has begun it, and nothing large has followed.
        closed: whether its last unit has been.
        unmerged: whether it closes with a sum outside its units.
        large, large_before: how many large units it has from its last merge on, and the one before it had.
        follow, followed: whether large units follow the one that began it, and whether they did in the one before.
    """

    def __init__(self, merges: Merges, visits: list[Visit], turn: int, rest: Role, *, has_transitions: bool):
        self.flow = merges.flow
        self.visits = visits[turn:]
        self.working = [visit for visit in self.visits if visit.works]
        self.rest = rest
        self.index = rest.shape
        self.spatial = merges.spatial
        self.merges = merges.awaited(visits)
        self.joins = merges.joins
        self.end = visits[-1].end
        self.surface = min(visit.entry for visit in visits[: turn + 1])
        self.output = self._find_output()
        self.transitions = self._find_transitions()
        self.has_transitions = has_transitions or bool(self.transitions)
        works_until = max((i for i, visit in enumerate(self.visits) if visit.works), default=-1)
        self.last_up = max((i for i in range(works_until + 1) if self._starts_stage(self.visits[i])), default=-1)
        self.number = 0
        self.numbers: set[int] = set()
        self.closed = True
        self.unmerged = False
        self.begun_bare = False
        self.before = -1
        self.large = self.large_before = 0
        self.follow = self.followed = False

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
                    if self._merges_between(self.before + 1, visit.end, of=self.joins):
                        self.large = 0
                    self.large += self._is_large(visit)
                    self.follow |= self._is_large(visit) and not starts
                self.before = visit.end
                yield visit, role
            if ends:
                self._begin(bare=True)

    def _begin(self, *, bare: bool) -> None:
        self.number += 1
        self.closed = self.unmerged = False
        self.begun_bare = bare
        self.large, self.large_before = 0, self.large
        self.follow, self.followed = False, self.follow

    def _works_before(self, visit: Visit) -> bool:
        """Whether a unit that goes up does most of its work before."""
        if not visit.works or visit in self.transitions:
            return False
        return convolutions_at(self.flow, visit, visit.entry) > convolutions_at(self.flow, visit, visit.exit)

    def _role(self, visit: Visit, *, more_ups: bool, is_last: bool) -> Role:
        decoder = Role("decoder", self.number, self.index)
        counted = 0 if self._merges_between(self.before + 1, visit.end, of=self.joins) else self.large
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
            if not self.followed:
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
        return last if convolutions_at(self.flow, last, last.entry) else None

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
