"""The parts of an `Anatomy`, from the roles that were found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from .levels import SAME
from .membership import Membership, stage_name
from .skips import LongSkip
from .types import Level, Role, SkipConnection, Stage, Transition, Unit, UShape
from .units import Route, Visit

_STAGE_KINDS = {"side input": "side", "conditioning": "side"}


def describe_stages(route: Route, roles: Mapping[str, Role], membership: Membership) -> tuple[Stage, ...]:
    """The stages with their units, in execution order."""
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
        role = next((roles[path] for path in paths if stage_name(roles[path]) == name), Role("body"))
        kind = _STAGE_KINDS.get(role.kind, role.kind)
        stages.append(Stage(name, kind, levels.get(name), tuple(paths), role.shape))
    return tuple(stages)


def _stage_levels(route: Route, roles: Mapping[str, Role], membership: Membership) -> dict[str, int]:
    """The level at which most convolutions of each stage run, where that is a whole one.

    Convolutions on the main path that keep the level come first; where a stage has none, those that change it, and
    where it lies off the main path, all of its convolutions. Of two levels with as many, it is the one that more of
    those that change it lead to, else the shallower one.
    """
    flow = route.flow
    keeping: dict[str, Counter[float]] = {}
    changing: dict[str, Counter[float]] = {}
    aside: dict[str, Counter[float]] = {}
    before: Level = None
    for position, node in enumerate(flow.main):
        level = route.levels[position]
        if level is None:
            continue
        if flow.weighted[node]:
            role = roles.get(route.visit_at[position].path or "")
            changes = before is not None and abs(level - before) > SAME
            convolutions = changing if changes or (role is not None and role.is_transition) else keeping
            convolutions.setdefault(membership.at[position], Counter())[level] += flow.weighted[node]
        before = level
    for path, name in membership.stage_of_unit.items():
        for node in route.members[path]:
            level = flow.level[node]
            if flow.weighted[node] and level is not None:
                aside.setdefault(name, Counter())[level] += flow.weighted[node]
    levels: dict[str, int] = {}
    for name, counts in (aside | changing | keeping).items():
        most = max(counts, key=lambda level: (counts[level], changing.get(name, Counter())[level], -level))
        if most == int(most):
            levels[name] = int(most)
    return levels


def describe_units(route: Route, roles: Mapping[str, Role], membership: Membership) -> tuple[Unit, ...]:
    """Every unit that has a role, in execution order."""
    flow = route.flow
    order = {node: i for i, node in enumerate(flow.nodes)}
    in_call = flow.weighted_in_calls()
    visited: dict[str | None, Visit] = {}
    for visit in route.visits:
        visited.setdefault(visit.path, visit)
    units = []
    for path in sorted(roles, key=lambda path: order[route.members[path][0]]):
        nodes = route.members[path]
        levels = [level for node in nodes if (level := flow.level[node]) is not None]
        first = visited.get(path)
        units.append(
            Unit(
                path=path,
                role=roles[path].label,
                stage=membership.stage_of_unit[path],
                entry=first.entry if first else next(iter(levels), None),
                exit=first.exit if first else next(reversed(levels), None),
                convolutions=in_call[route.unit_call(nodes[0])[1] or ""],
                on_main_path=first is not None and first.works,
            )
        )
    return tuple(units)


def describe_transitions(route: Route, membership: Membership) -> Iterator[Transition]:
    """The changes of resolution on the main path, in execution order; what happens inside a unit counts as one."""
    known = [(position, level) for position, level in enumerate(route.levels) if level is not None]
    for (_, entry), (position, level) in pairwise(known):
        if abs(level - entry) > SAME:
            unit = route.visit_at[position].path
            yield Transition(route.flow.main[position].name, unit, entry, level, membership.at[position])


def describe_skips(route: Route, skips: Sequence[LongSkip], membership: Membership) -> Iterator[SkipConnection]:
    """The long skip connections, in execution order."""
    main = route.flow.main
    for skip in skips:
        yield SkipConnection(
            source=main[skip.source].name,
            target=main[skip.target].name,
            level=skip.level,
            kind=skip.kind,
            source_stage=membership.at[skip.source],
            target_stage=membership.of_merge(skip.target),
        )


def describe_shapes(shapes: Sequence[Sequence[Visit]], stages: Sequence[Stage]) -> Iterator[UShape]:
    """The passes of the main path down and up again, in execution order."""
    for index, visits in enumerate(shapes):
        levels = [level for visit in visits for level in (visit.entry, visit.exit)]
        yield UShape(
            index=index,
            stages=tuple(stage.name for stage in stages if stage.pass_index == index),
            top=min(levels),
            bottom=max(levels),
            downs=sum(visit.goes_down for visit in visits),
            ups=sum(visit.goes_up for visit in visits),
        )
