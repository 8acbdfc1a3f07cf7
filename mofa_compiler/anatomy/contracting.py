"""The side of a U-Net that goes down: stem, encoder stages with their transitions, and bottleneck."""

from __future__ import annotations

from collections.abc import Iterator

from .flow import Flow
from .levels import SAME
from .role import Role
from .units import Visit, convolutions_at


class Contracting:
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
                before = convolutions_at(self.flow, visit, visit.entry)
                after = convolutions_at(self.flow, visit, visit.exit)
                balance += 1 if after >= before else -1
        return balance > 0
