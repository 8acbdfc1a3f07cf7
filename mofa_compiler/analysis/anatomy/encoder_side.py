"""The side of a U-Net that goes down: stem, encoder stages with their transitions, and bottleneck."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from .flow import Flow
from .levels import SAME
from .types import Role
from .units import Visit, convolutions_at


class Contracting:
    """The side that goes down: stem, encoder stages with their transitions, and bottleneck.

    `skips_leave` are the main-path positions that long skip connections leave.
    """

    def __init__(
        self,
        flow: Flow,
        visits: list[Visit],
        deepest: float,
        comes_up_again: bool,
        index: int,
        skips_leave: Sequence[int],
    ):
        self.flow = flow
        self.visits = visits
        self.working = [visit for visit in visits if visit.works]
        self.deepest = deepest
        self.comes_up_again = comes_up_again
        self.goes_down = any(visit.goes_down for visit in visits)
        self.index = index
        self.skips_leave = skips_leave
        self.stem = self._find_stem()
        self.transitions = self._find_transitions() | self._find_separate_downs()

    def label(self) -> Iterator[tuple[Visit, Role]]:
        works_after_down = self._works_after_down()
        opens = works_after_down and self._opens_with_a_stage()
        downs = 0
        for visit in self.visits:
            if visit is self.stem:
                yield visit, Role("stem", shape=self.index)
                continue
            if visit in self.transitions:
                yield visit, Role("down transition", shape=self.index)
            elif visit.works:
                at_bottom = not visit.goes_down and visit.entry >= self.deepest - SAME
                number = downs + (visit.goes_down or not works_after_down) + opens
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
        """The network's first unit, where it is a single convolution or shares its level with another kind of unit."""
        if self.index or not self.working:
            return None
        first, *others = self.working
        shares_level = not first.changes_level and any(
            other.entry == other.exit == first.entry and not other.resamples_only and not self._are_alike(first, other)
            for other in others
        )
        return first if first.convolutions <= 1 or shares_level else None

    def _are_alike(self, unit: Visit, other: Visit) -> bool:
        """Whether two units are of one class, other than a list, and stand beside each other."""
        kinds = self.flow.program.containers
        kind = kinds.get(unit.path or "", nn.Sequential)
        same_class = kind is kinds.get(other.path or "") and kind is not nn.Sequential
        return same_class and (unit.path or "").rpartition(".")[0] == (other.path or "").rpartition(".")[0]

    def _opens_with_a_stage(self) -> bool:
        """Whether a long skip leaves units that follow the stem on its level; where it has gone down itself, none."""
        if self.stem is None or self.stem.changes_level:
            return False
        change = next((visit.start for visit in self.visits if visit.goes_down), self.visits[-1].end)
        opening = [visit.start for visit in self.working if self.stem.end < visit.start < change]
        return bool(opening) and any(opening[0] <= source < change for source in self.skips_leave)

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

    def _find_separate_downs(self) -> set[Visit]:
        """The units that go down, where others do the work on all the levels that they lie between.

        In a classifier, whose stem goes down, too, and whose blocks stand in one list, they begin their levels instead.
        """
        downs = [visit for visit in self.working if visit.goes_down and visit is not self.stem]
        stages = [visit for visit in self.working if not visit.changes_level and visit is not self.stem]
        stages = [visit for visit in stages if visit.convolutions >= 2]
        classifies = self.stem is not None and self.stem.goes_down
        for down in downs:
            before = [stage for stage in stages if stage.start < down.start and abs(stage.exit - down.entry) < SAME]
            after = [stage for stage in stages if stage.start > down.start and abs(stage.entry - down.exit) < SAME]
            if not before or not after:
                return set()
            if classifies and any(self._are_in_one_list(down, unit) for unit in after):
                return set()
        return set(downs)

    def _are_in_one_list(self, unit: Visit, other: Visit) -> bool:
        parent = (unit.path or "").rpartition(".")[0]
        kind = self.flow.program.containers.get(parent, nn.Module)
        return issubclass(kind, (nn.ModuleList, nn.Sequential)) and (other.path or "").rpartition(".")[0] == parent

    def _works_after_down(self) -> bool:
        """Whether the units that hold a change of resolution mostly do their work after it."""
        balance = 0
        for visit in self.working:
            if visit.changes_level and visit not in self.transitions and visit is not self.stem:
                before = convolutions_at(self.flow, visit, visit.entry)
                after = convolutions_at(self.flow, visit, visit.exit)
                balance += 1 if after >= before else -1
        return balance > 0
