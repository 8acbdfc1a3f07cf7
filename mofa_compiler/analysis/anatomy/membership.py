"""Which stage everything belongs to: the main path from one role to the next, and what lies off it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import fx

from .levels import SAME
from .types import Role
from .units import Route, Visit

_PER_PASS = ("encoder", "bottleneck", "decoder", "bridge")


class Membership:
    """The stage, by name, of every unit, main-path position and leaf module.

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

    def of_merge(self, position: int) -> str:
        """The stage that a merge on the main path leads into: where it lies between units, the next one's."""
        if self.route.visit_at[position].path is not None:
            return self.at[position]
        following = next((visit for visit in self.route.visits if visit.start > position and visit.works), None)
        return self.at[position] if following is None else self.at[following.start]

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
        return None if role is None or role.is_transition or role.kind == "branch" else stage_name(role)

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
                stages[path] = stage_name(role)
        return stages


def _carry(names: Iterable[str | None]) -> list[str | None]:
    """Each name repeated until the next one."""
    current = None
    carried = []
    for name in names:
        current = name or current
        carried.append(current)
    return carried


def stage_name(role: Role) -> str:
    """The name of the stage that units of a role form."""
    return f"pass {role.shape + 1} {role.label}" if role.shape and role.kind in _PER_PASS else role.label
