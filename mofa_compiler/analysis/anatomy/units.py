"""Which modules are the building blocks: containers small enough to lie on one level, and the visits to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise, takewhile

from torch import fx, nn

from ...graph.program import Program
from .flow import Flow
from .levels import SAME
from .types import Level

_LISTS = (nn.ModuleList, nn.ModuleDict)


@dataclass(eq=False)
class Visit:
    """A run of consecutive main-path nodes inside one call of one unit, or outside every unit (`path` is None).

    Attributes:
        start, end: first and last main-path position.
        entry, exit: level before and at the end.
        floor: deepest level of a convolution in it, at least `entry`.
        convolutions: how many the call runs, on all branches.
        on_path: how many of them lie on the main path.
    """

    path: str | None
    key: str | None
    start: int
    nodes: list[fx.Node] = field(default_factory=list)
    entry: float = 0
    exit: float = 0
    floor: float = 0
    convolutions: int = 0
    on_path: int = 0

    @property
    def end(self) -> int:
        return self.start + len(self.nodes) - 1

    @property
    def goes_down(self) -> bool:
        return self.exit > self.entry + SAME

    @property
    def goes_up(self) -> bool:
        return self.exit < self.entry - SAME

    @property
    def changes_level(self) -> bool:
        return self.goes_down or self.goes_up

    @property
    def deepest(self) -> float:
        return max(self.entry, self.exit)

    @property
    def works(self) -> bool:
        """Whether it is a unit that convolves on the main path."""
        return self.path is not None and self.on_path > 0

    @property
    def resamples_only(self) -> bool:
        """Whether it is a unit that changes the level with at most one convolution."""
        return self.path is not None and self.changes_level and self.convolutions <= 1


class Route:
    """The main path divided into visits to `units`.

    Attributes:
        visits: in execution order.
        visit_at: the visit of each main-path position.
        levels: level at each main-path position, kept between its unit's entry and exit: what a unit does inside
            (a small U-Net as a block) does not count.
    """

    def __init__(self, flow: Flow, units: Collection[str], in_call: Counter[str]):
        self.flow = flow
        self.units = frozenset(units)
        self.visits = self._divide()
        self._measure(in_call)
        self.visit_at = [visit for visit in self.visits for _ in visit.nodes]
        self.levels = [self._seen_level(node, visit) for node, visit in zip(flow.main, self.visit_at, strict=True)]

    def unit_call(self, node: fx.Node) -> tuple[str, str] | tuple[None, None]:
        """Path and call key of the unit that a node lies in, on the main path or not."""
        return next((call for call in self.flow.calls[node] if call.path in self.units), (None, None))

    @cached_property
    def members(self) -> dict[str, list[fx.Node]]:
        """All nodes of each unit, on the main path or not, in execution order."""
        members: dict[str, list[fx.Node]] = {}
        for node in self.flow.nodes:
            path, _ = self.unit_call(node)
            if path is not None:
                members.setdefault(path, []).append(node)
        return members

    def _divide(self) -> list[Visit]:
        visits: list[Visit] = []
        current, went = 0.0, 0.0
        for position, node in enumerate(self.flow.main):
            path, key = self.unit_call(node)
            level = self.flow.level[node]
            step = 0.0 if level is None or abs(level - current) <= SAME else level - current
            turns = path is None and step * went < 0  # down and up again between units
            if not visits or (visits[-1].path, visits[-1].key) != (path, key) or turns:
                visits.append(Visit(path, key, position))
                went = 0.0
            visits[-1].nodes.append(node)
            current, went = current + step, step or went
        return visits

    def _measure(self, in_call: Counter[str]) -> None:
        level, weighted = self.flow.level, self.flow.weighted
        current = level[self.flow.main[0]] or 0
        for visit in self.visits:
            levels = [known for node in visit.nodes if (known := level[node]) is not None]
            visit.entry = current
            visit.exit = current = levels[-1] if levels else current
            at_convolutions = (level[node] for node in visit.nodes if weighted[node])
            visit.floor = max((known for known in at_convolutions if known is not None), default=visit.entry)
            visit.floor = max(visit.floor, visit.entry)
            visit.on_path = sum(weighted[node] for node in visit.nodes)
            visit.convolutions = visit.on_path if visit.key is None else in_call[visit.key]

    def _seen_level(self, node: fx.Node, visit: Visit) -> Level:
        level = self.flow.level[node]
        if level is None or visit.path is None:
            return level
        low, high = sorted((visit.entry, visit.exit))
        return min(max(level, low), high)


def find_route(flow: Flow, in_call: Counter[str]) -> Route:
    """The main path divided into units, found by opening containers until each lies on one level."""
    tree = _ModuleTree(flow.program)
    inside = flow.levels_in_paths()
    units = set(tree.children(""))
    while True:
        lists = {path for path in units if tree.is_list(path) and tree.children(path)}
        if not lists:
            route = Route(flow, units, in_call)
            openable = [visit for visit in route.visits if visit.path is not None and tree.children(visit.path)]
        opened = lists or _too_large(route, openable, inside) or _hiding_networks(route, openable)
        if not opened:
            return route
        units = (units - opened) | {child for path in opened for child in tree.children(path)}


class _ModuleTree:
    """The children of every module; a module registered under several names goes by the first, as in the graph."""

    def __init__(self, program: Program):
        self._containers = program.containers
        first_name: dict[int, str] = {}
        names = {path: first_name.setdefault(id(module), path) for path, module in program.modules.items()}
        self._children: dict[str, dict[str, None]] = {}
        for path in (*program.containers, *program.modules):
            child = names.get(path, path)
            while path:
                path = path.rpartition(".")[0]
                known = path in self._children
                self._children.setdefault(path, {})[child] = None
                if known:
                    break
                child = path

    def children(self, path: str) -> list[str]:
        return list(self._children.get(path, ()))

    def is_list(self, path: str) -> bool:
        return issubclass(self._containers.get(path, nn.Module), _LISTS)


def _too_large(route: Route, visits: list[Visit], inside: dict[str, Counter[float]]) -> set[str]:
    """Units whose entry and exit are two levels apart, and units that hold all that is deeper than they are.

    What only goes up, with a single convolution, stays whole however far it goes: the change lies behind its children.
    """

    def deeper(path: str, level: float) -> int:
        return sum(count for other, count in inside[path].items() if other > level + SAME)

    blocks = _Blocks(route)
    found = set()
    for visit in visits:
        path = visit.path or ""
        holds_the_rest = 0 < deeper(path, visit.deepest) == deeper("", visit.deepest)
        spans_levels = abs(visit.entry - visit.exit) > 1 + SAME and not (visit.goes_up and visit.resamples_only)
        if spans_levels or (holds_the_rest and not blocks.is_one(visit)):
            found.add(path)
    return found


def _hiding_networks(route: Route, openable: list[Visit]) -> set[str]:
    """Units that hold whole U-Nets, where the network goes deeper inside its units than between them (cascades).

    In a network that is U-shaped as it stands, those are at its bottom only (hourglasses, defined by recursion).
    """
    floor = max(visit.floor for visit in route.visits)
    bottom = max(visit.deepest for visit in route.visits)
    if floor <= bottom + SAME:
        return set()
    hiding = [visit for visit in openable if visit.floor > max(visit.deepest + SAME, floor - SAME)]
    blocks = _Blocks(route)
    if blocks.u_shaped:
        hiding = [visit for visit in hiding if visit.deepest > bottom - SAME and not blocks.is_one(visit)]
    return {visit.path for visit in hiding if visit.path is not None}


class _Blocks:
    """Tells blocks that look at smaller copies of their features (context) from nested networks.

    Attributes:
        u_shaped: whether the network goes down and up again between or inside its units as they stand.
        step: the furthest that it goes down there at once.
        has_stages_above: whether units above its bottom convolve more than once.
        are_common: whether such units also go down and come back inside.
    """

    def __init__(self, route: Route):
        self.flow = route.flow
        downs = [i for i, visit in enumerate(route.visits) if visit.goes_down]
        ups = [i for i, visit in enumerate(route.visits) if visit.goes_up]
        self.u_shaped = bool(downs and ups) and downs[0] < ups[-1]
        self.step = max((visit.exit - visit.entry for visit in route.visits), default=0)
        bottom = max(visit.deepest for visit in route.visits)
        above = [visit for visit in route.visits if visit.works and visit.deepest < bottom - SAME]
        self.has_stages_above = any(visit.convolutions >= 2 for visit in above)
        self.are_common = any(not visit.changes_level and visit.floor > visit.entry + SAME for visit in above)

    def is_one(self, visit: Visit) -> bool:
        """Whether a unit of a U-shaped network is a block that comes back to the level that it began on.

        It is one if it goes further down at once than the network does anywhere. In a network with stages around it it
        is one, too, if blocks elsewhere do as it does, if it works before and after a single deeper level, or if it
        works no longer than a layer on any deeper one; not if it is defined by recursion or is a plain row of modules.
        """
        if not self.u_shaped or visit.changes_level:
            return False
        known = [level for node in visit.nodes if (level := self.flow.level[node]) is not None]
        furthest = max((after - before for before, after in pairwise([visit.entry, *known])), default=0)
        if furthest > self.step + SAME:
            return True
        if not self.has_stages_above or self._is_recursive(visit) or self._changes_between_children(visit):
            return False
        return self.are_common or self._works_around_one_level(visit) or not self._has_stages(visit)

    def _is_recursive(self, visit: Visit) -> bool:
        """Whether a unit lies in one of its own class."""
        containers = self.flow.program.containers
        around, path = [], visit.path or ""
        while path := path.rpartition(".")[0]:
            around.append(containers.get(path))
        kind = containers.get(visit.path or "")
        return kind in around and kind is not nn.Sequential

    def _changes_between_children(self, visit: Visit) -> bool:
        """Whether a unit is a plain row of modules that do not each come back to the level that it began on."""
        if self.flow.program.containers.get(visit.path or "") is not nn.Sequential:
            return False
        depth = (visit.path or "").count(".") + 1
        level, inside = visit.entry, None
        for node in visit.nodes:
            child = next((call.path for call in self.flow.calls[node] if call.path.count(".") == depth), None)
            if child != inside and abs(level - visit.entry) > SAME:
                return True
            known = self.flow.level[node]
            level, inside = level if known is None else known, child
        return False

    def _works_around_one_level(self, visit: Visit) -> bool:
        """Whether a unit convolves on its own level before it goes one level down and after it has come back."""
        if visit.floor > visit.entry + max(self.step, 1) + SAME:
            return False
        levels = [(self.flow.level[node], self.flow.weighted[node]) for node in visit.nodes]
        known = [(level, weighted) for level, weighted in levels if level is not None]
        before = takewhile(lambda found: found[0] < visit.entry + SAME, known)
        after = takewhile(lambda found: found[0] < visit.entry + SAME, reversed(known))
        return any(weighted for _, weighted in before) and any(weighted for _, weighted in after)

    def _has_stages(self, visit: Visit) -> bool:
        """Whether two convolutions in a row run inside a unit on one and the same deeper level."""
        level, in_a_row = visit.entry, 0
        for node in visit.nodes:
            known = self.flow.level[node]
            before, level = level, level if known is None else known
            in_a_row = in_a_row + self.flow.weighted[node] if abs(level - before) < SAME else 0
            if in_a_row >= 2 and level > visit.deepest + SAME:
                return True
        return False


def convolutions_at(flow: Flow, visit: Visit, level: float) -> int:
    """How many convolutions of a visit run at a level."""
    levels = ((flow.level[node], flow.weighted[node]) for node in visit.nodes)
    return sum(weighted for known, weighted in levels if known is not None and abs(known - level) < SAME)
