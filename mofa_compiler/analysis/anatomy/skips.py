"""The long skip connections: what leaves the main path, passes something deeper by, and comes back."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

from torch import fx

from .flow import Flow
from .levels import CONCATENATIONS, SAME
from .types import Level
from .units import Route, Visit
from .values import operation


@dataclass(frozen=True)
class LongSkip:
    """A merge at main-path position `target` whose other operand left the path at `source`, before something deeper."""

    source: int
    target: int
    level: Level
    kind: str


class RangeMaximum:
    """The largest known level of any stretch of a sequence, in constant time after linearithmic preparation."""

    def __init__(self, levels: Sequence[Level]):
        row = [float("-inf") if level is None else level for level in levels]
        self._rows = [row]
        width = 1
        while 2 * width <= len(row):
            above = self._rows[-1]
            self._rows.append([max(pair) for pair in zip(above, above[width:], strict=False)])
            width *= 2

    def __call__(self, start: int, stop: int) -> float:
        """The maximum over start <= i < stop; minus infinity where nothing is known."""
        if start >= stop:
            return float("-inf")
        row = (stop - start).bit_length() - 1
        return max(self._rows[row][start], self._rows[row][stop - (1 << row)])


class Bypasses:
    """Which ways off the main path are long: answers for the whole package where a value left it, and past what.

    Attributes:
        known: level at each main-path position, carried over those without.
        convolved: whether anything has been convolved up to each main-path position.
        departures: for each node, by level, the last main-path position at that level that its features come from;
            indices and masks carry none.
    """

    def __init__(self, route: Route):
        self.route = route
        flow = route.flow
        self.known = _carried(route.levels)
        self.convolved = [total > 0 for total in accumulate(flow.weighted[node] for node in flow.main)]
        self.departures = self._find_departures(flow)
        self._deepest = RangeMaximum(route.levels)
        self._convolutions = [0, *accumulate(flow.weighted[node] for node in flow.main)]
        stretches = _stretches(self.known)
        self._changes = [i for i in range(1, len(stretches)) if stretches[i] != stretches[i - 1]]

    def are_long(self, source: int, leaves: float, target: int) -> bool:
        """Whether what leaves at `source`, on level `leaves`, and comes back at `target` passes something deeper by.

        That is a stretch deeper than both ends; or, where it leaves deeper than it comes back, other units that work
        down there (a transformer's encoder stays on one level). The raw input makes no long skip: adding it to the
        output is a global residual.
        """
        if source <= 0 or source >= target or not self.convolved[source]:
            return False
        before, after = self.route.visit_at[source], self.route.visit_at[target]
        if before.path is not None and before.path == after.path:
            return False  # inside one unit
        joins = self.known[target] or 0
        if self._deepest(source + 1, target) > max(leaves, joins) + SAME:
            return True
        return leaves > joins + SAME and self._work_below(before.end + 1, after.start, leaves) >= 2

    def _work_below(self, start: int, stop: int, level: float) -> int:
        """How many convolutions run at a level or deeper within start <= i < stop."""
        inside = self._changes[bisect_right(self._changes, start) : bisect_left(self._changes, stop)]
        return sum(
            self._convolutions[last] - self._convolutions[first]
            for first, last in pairwise((start, *inside, stop))
            if first < last and (self.known[first] or 0) > level - SAME
        )

    def long_source(self, node: fx.Node, target: int) -> int | None:
        """Where a value that comes back at `target` left the main path for a long skip, if it did.

        Where it draws on several places, the one on the target's own level, else the last one.
        """
        long = [
            (level == self.known[target], source)
            for level, source in self.departures[node].items()
            if self.are_long(source, level, target)
        ]
        return max(long, default=(False, None))[1]

    def _find_departures(self, flow: Flow) -> Mapping[fx.Node, Mapping[float, int]]:
        departures: dict[fx.Node, dict[float, int]] = {}
        for node in flow.nodes:
            position = flow.position.get(node)
            if position is not None:
                departures[node] = {self.known[position] or 0: position}
                continue
            departures[node] = {}
            for source in flow.sources[node] if flow.carries_features(node) else ():
                own, start = flow.level[node], flow.position.get(source)
                left = departures[source]
                if own is not None and start is not None and flow.holds_several(source):
                    left = {own: start}  # out of a list of features on several levels
                for level, start in left.items():
                    departures[node][level] = max(start, departures[node].get(level, -1))
        return departures


def long_merges(bypasses: Bypasses, shapes: Sequence[Sequence[Visit]]) -> list[LongSkip]:
    """Every merge on the main path that a long skip ends in, in execution order."""
    route = bypasses.route
    flow = route.flow
    starts = [shape[0].start for shape in shapes if shape]
    last_convolution = max((i for i, node in enumerate(flow.main) if flow.weighted[node]), default=-1)
    found = []
    for target, node in enumerate(flow.main):
        level = flow.level[node]
        if level is None or target == 0:
            continue
        for operand in dict.fromkeys(flow.sources[node]):
            if operand is flow.main[target - 1] or flow.level[operand] is None:
                continue
            source = bypasses.long_source(operand, target)
            if source is None:
                continue
            if target > last_convolution and (
                any(source < start <= target for start in starts) or flow.channels(node) == flow.channels(flow.image)
            ):
                continue  # images are added up, not features: a global residual, or the outputs of several decoders
            found.append(LongSkip(source, target, level, merge_kind(node, flow)))
    return found


def connections(bypasses: Bypasses, merges: Sequence[LongSkip]) -> list[LongSkip]:
    """The merges as a person counts them: one for each place that something is taken from and stretch it is taken into.

    A gate merges what it weighs before the result is concatenated: what counts then is the concatenation.
    """
    stretches = _stretches(bypasses.known)
    gated = _gated_concatenations(bypasses)
    found: dict[tuple[int, int], LongSkip] = {}
    for merge in merges:
        stretch = stretches[merge.target]
        after = bisect_right(gated, (merge.target, len(stretches)))
        if merge.kind != "cat" and after < len(gated):
            target, begins = gated[after]
            if begins < merge.target and stretches[begins] == stretches[target] == stretch:
                merge = replace(merge, target=target, kind="cat")
        found.setdefault((merge.source, stretch), merge)
    return sorted(found.values(), key=lambda merge: merge.target)


def awaited(bypasses: Bypasses, merges: Sequence[LongSkip], shapes: Sequence[Sequence[Visit]]) -> list[LongSkip]:
    """The merges that a decoder stage waits for: the first with each source, and all that concatenate.

    Where some of them come from its own level, or from its own U-Net of a cascade, the others do not count: they feed
    what earlier stages made into something further on (as in the third stage of MPRNet).
    """
    stretches = _stretches(bypasses.known)
    starts = [shape[0].start for shape in shapes]
    groups: dict[int, list[LongSkip]] = {}
    known: set[tuple[int, int]] = set()
    for merge in merges:
        stretch = stretches[merge.target]
        if merge.kind == "cat" or (stretch, merge.source) not in known:
            groups.setdefault(stretch, []).append(merge)
        known.add((stretch, merge.source))
    found: list[LongSkip] = []
    for waited in groups.values():
        waited = [m for m in waited if bypasses.known[m.source] == bypasses.known[m.target]] or waited
        own = [m for m in waited if bisect_right(starts, m.source) == bisect_right(starts, m.target)]
        found += own or waited
    return found


def _stretches(levels: Sequence[Level]) -> list[int]:
    """For each main-path position the number of changes of level before it."""
    changes = [0]
    for before, after in pairwise(levels):
        changed = before is not None and after is not None and abs(before - after) > SAME
        changes.append(changes[-1] + changed)
    return changes


def _gated_concatenations(bypasses: Bypasses) -> list[tuple[int, int]]:
    """Main-path positions of concatenations with something that left the path not long before, and where it left."""
    flow = bypasses.route.flow
    found = []
    for target, node in enumerate(flow.main):
        if target and merge_kind(node, flow) == "cat":
            others = [operand for operand in flow.sources[node] if operand is not flow.main[target - 1]]
            left = [flow.left[operand] for operand in others if bypasses.long_source(operand, target) is None]
            if left and bypasses.convolved[max(min(left), 0)]:
                found.append((target, min(left)))
    return found


def merge_kind(node: fx.Node, flow: Flow) -> str:
    """What a merge does: "cat", "add", "mul", ...; the class of a module that merges inside."""
    if node.op == "call_module":
        return type(flow.program.modules[str(node.target)]).__name__
    name = operation(node).strip("_")
    if name in CONCATENATIONS:
        return "cat"
    return {"iadd": "add", "imul": "mul", "isub": "sub"}.get(name, name)


def _carried(levels: Sequence[Level]) -> list[Level]:
    carried: list[Level] = []
    for level in levels:
        carried.append(carried[-1] if level is None and carried else level)
    return carried
