"""From a `Program` to its `Anatomy`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import fx

from ..program import Program
from .aside import roles_aside
from .description import Anatomy, Level, SkipConnection, Stage
from .flow import SAME, Flow
from .roles import Role, find_roles, u_shapes
from .skips import Bypasses, LongSkip, connections, long_merges, settling
from .transitions import transition_paths
from .units import Route, Visit, find_route

_STAGE_KINDS = {"side input": "side", "conditioning": "side"}
_PER_PASS = ("encoder", "bottleneck", "decoder", "bridge")


def infer(program: Program) -> Anatomy:
    """Find the stages of a network from its graph; names of modules and classes play no part.

    The example input of the program should be large enough that its deepest level is still an image; 256x384 is.

    Raises:
        AnatomyError: no input is an image batch (N, C, H, W).
    """
    flow = Flow(program)
    route = find_route(flow, flow.weighted_in_calls())
    shapes = u_shapes(route.visits)
    bypasses = Bypasses(route)
    merges = long_merges(bypasses, shapes)
    skips = connections(bypasses, merges)
    roles = find_roles(route, settling(bypasses, merges), shapes)
    roles |= dict(roles_aside(bypasses, merges, roles))
    membership = _Membership(route, roles)
    stages = _describe_stages(route, roles, membership)
    inputs, outputs = _outer_convolutions(flow)
    is_unet, reason = _judge(shapes, skips)
    return Anatomy(
        is_unet=is_unet,
        reason=reason,
        stages=stages,
        roles={path: role.label for path, role in roles.items()},
        skips=tuple(
            SkipConnection(flow.main[skip.source].name, flow.main[skip.target].name, skip.level, skip.kind)
            for skip in skips
        ),
        levels={node.name: flow.level[node] for node in flow.nodes},
        stage_by_path=membership.leaves,
        transition_paths=transition_paths(route, roles, membership.at, membership.leaves, stages),
        input_paths=inputs,
        output_paths=outputs,
    )


class _Membership:
    """Which stage everything belongs to, by name.

    Attributes:
        stage_of_unit: for each unit that convolves.
        at: for each main-path position.
        leaves: for each leaf module that is called.
    """

    def __init__(self, route: Route, roles: Mapping[str, Role]):
        self.route = route
        self.roles = roles
        self.at = self._stages_along_path()
        self.stage_of_unit = self._stages_of_units()
        self.leaves: dict[str, str] = {}
        for node in route.flow.nodes:
            if node.op == "call_module":
                self.leaves.setdefault(str(node.target), self.of_node(node))

    def of_node(self, node: fx.Node) -> str:
        """The stage of a node: its unit's, else that of the main path where the node leaves or feeds it."""
        path, _ = self.route.unit_call(node)
        if path is not None and path in self.stage_of_unit:
            return self.stage_of_unit[path]
        left, feeds = self.route.flow.left[node], self.route.flow.feeds[node]
        return self.at[left if left >= 0 else min(feeds, len(self.at) - 1)]

    def _stages_along_path(self) -> list[str]:
        """Stages go on until the next one begins; what changes the level between two belongs to the second."""
        visits = self.route.visits
        own = [self._own_stage(visit) for visit in visits]
        upcoming = _carry(reversed(own))[::-1]
        current = next((name for name in own if name), "body")
        stages: list[str] = []
        for visit, name, following in zip(visits, own, upcoming, strict=True):
            if name:
                current = name
                stages += [current] * len(visit.nodes)
            elif visit.changes_level:
                change = self._first_change(visit)
                stages += [current] * (change - visit.start)
                current = following or current
                stages += [current] * (visit.end + 1 - change)
            else:
                stages += [current] * len(visit.nodes)
        return stages

    def _own_stage(self, visit: Visit) -> str | None:
        role = self.roles.get(visit.path or "")
        return None if role is None or role.is_transition or role.kind == "branch" else _stage_name(role)

    def _first_change(self, visit: Visit) -> int:
        if visit.path is not None:
            return visit.start
        levels = self.route.levels
        for position in range(visit.start, visit.end + 1):
            level = levels[position]
            if level is not None and abs(level - visit.entry) > SAME:
                return position
        return visit.start

    def _stages_of_units(self) -> dict[str, str]:
        flow = self.route.flow
        visited = {visit.path: visit.start for visit in reversed(self.route.visits)}
        stages = {}
        for path, role in self.roles.items():
            if path in visited:
                stages[path] = self.at[visited[path]]
            elif role.kind == "branch":
                stages[path] = self.at[min(flow.feeds[node] for node in self.route.members[path])]
            else:
                stages[path] = _stage_name(role)
        return stages


def _carry(names: Iterable[str | None]) -> list[str | None]:
    """Each name repeated until the next one."""
    current = None
    carried = []
    for name in names:
        current = name or current
        carried.append(current)
    return carried


def _stage_name(role: Role) -> str:
    return f"pass {role.shape + 1} {role.label}" if role.shape and role.kind in _PER_PASS else role.label


def _describe_stages(route: Route, roles: Mapping[str, Role], membership: _Membership) -> tuple[Stage, ...]:
    order = {node: i for i, node in enumerate(route.flow.nodes)}
    started = {path: order[nodes[0]] for path, nodes in route.members.items()}
    units: dict[str, list[str]] = {}
    for path in sorted(membership.stage_of_unit, key=started.__getitem__):
        units.setdefault(membership.stage_of_unit[path], []).append(path)
    for name in membership.leaves.values():
        units.setdefault(name, [])
    levels = _stage_levels(route, roles, membership)
    stages = []
    for name, paths in units.items():
        role = next((roles[path] for path in paths if _stage_name(roles[path]) == name), Role("body"))
        kind = _STAGE_KINDS.get(role.kind, role.kind)
        stages.append(Stage(name, kind, levels.get(name), tuple(paths), role.shape))
    return tuple(stages)


def _stage_levels(route: Route, roles: Mapping[str, Role], membership: _Membership) -> dict[str, int]:
    """The level at which most convolutions of each stage run, where that is a whole one.

    Convolutions on the main path that keep the level come first; where a stage has none, those that change it, and
    where it lies off the main path, all of its convolutions. Of two levels with as many, the stage leads to the last.
    """
    flow = route.flow
    keeping: dict[str, dict[float, int]] = {}
    changing: dict[str, dict[float, int]] = {}
    aside: dict[str, dict[float, int]] = {}
    before: Level = None
    for position, node in enumerate(flow.main):
        level = route.levels[position]
        if level is None:
            continue
        if flow.weighted[node]:
            role = roles.get(route.visit_at[position].path or "")
            changes = before is not None and abs(level - before) > SAME
            counts = changing if changes or (role is not None and role.is_transition) else keeping
            _count(counts, membership.at[position], level, flow.weighted[node])
        before = level
    for path, name in membership.stage_of_unit.items():
        for node in route.members[path]:
            level = flow.level[node]
            if flow.weighted[node] and level is not None:
                _count(aside, name, level, flow.weighted[node])
    most = {
        name: max(reversed(counts), key=counts.__getitem__) for name, counts in (aside | changing | keeping).items()
    }
    return {name: int(level) for name, level in most.items() if level == int(level)}


def _count(counts: dict[str, dict[float, int]], name: str, level: float, weighted: int) -> None:
    levels = counts.setdefault(name, {})
    levels[level] = levels.pop(level, 0) + weighted  # to the end: levels stand in the order of their last occurrence


def _outer_convolutions(flow: Flow) -> tuple[frozenset[str], frozenset[str]]:
    """The convolutions without another one between them and the input, and those without one before the output."""
    convolutions = [node for node in flow.nodes if flow.is_image_convolution(node)]
    convolves = set(convolutions)
    reads_input: set[fx.Node] = set()
    follows: set[fx.Node] = set()
    for node in flow.nodes:
        if node.op == "placeholder" or any(source in reads_input for source in flow.sources[node]):
            reads_input.add(node)
        if any(source in follows or source in convolves for source in flow.sources[node]):
            follows.add(node)
    precedes: set[fx.Node] = set()
    reaches_output: set[fx.Node] = set()
    for node in reversed(flow.nodes):
        if node.op == "output" or any(user in reaches_output for user in flow.users[node]):
            reaches_output.add(node)
        if any(user in precedes or user in convolves for user in flow.users[node]):
            precedes.add(node)
    called = [node for node in convolutions if node.op == "call_module"]
    first = frozenset(str(node.target) for node in called if node in reads_input and node not in follows)
    last = frozenset(str(node.target) for node in called if node in reaches_output and node not in precedes)
    return first, last


def _judge(shapes: list[list[Visit]], skips: list[LongSkip]) -> tuple[bool, str]:
    downs = sum(visit.goes_down for shape in shapes for visit in shape)
    ups = sum(visit.goes_up for shape in shapes for visit in shape)
    returning = sum(any(v.goes_down for v in shape) and any(v.goes_up for v in shape) for shape in shapes)
    if not downs and not ups:
        return False, "nothing on the main path changes the resolution"
    if not ups:
        return False, f"the resolution goes down {_times(downs)} and never up again"
    if not returning:
        return False, f"the resolution goes up {_times(ups)} without having gone down before"
    turns = f"the resolution goes down {_times(downs)} and up {_times(ups)}"
    if not skips:
        return False, f"{turns}, but no skip connection spans that"
    kinds = " and ".join(sorted({skip.kind for skip in skips}))
    spans = f"{len(skips)} long skip connection{'s' * (len(skips) > 1)} ({kinds})"
    return True, f"{turns}, spanned by {spans}"


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")
