"""The changes of resolution at the start of encoder stages: where each one ends, and the layers inside it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from torch import fx

from .flow import NOWHERE, Flow
from .levels import SAME
from .types import Role, Stage
from .units import Route


@dataclass
class _Run:
    """A stretch of the main path on one level; positions start <= i < stop."""

    level: float
    start: int
    stop: int
    entrances: list[fx.Node] = field(default_factory=list)


def transition_paths(
    route: Route,
    roles: Mapping[str, Role],
    stage_at: Sequence[str],
    stage_of_leaf: Mapping[str, str],
    stages: Sequence[Stage],
) -> frozenset[str]:
    """Leaf modules inside contracting transitions at the start of encoder stages and bottlenecks.

    A transition ends at the first node of the new level where all paths that came down have merged. It begins with
    its stage, or, where a stage does its work before it goes down, with the change of level itself. Units that only
    resample belong to it whole.
    """
    flow = route.flow
    by_name = {stage.name: stage for stage in stages}
    order = {node: i for i, node in enumerate(flow.nodes)}
    inside = {
        str(node.target)
        for path, role in roles.items()
        if role.kind == "down transition"
        for node in route.members[path]
        if node.op == "call_module"
    }
    for run in _contracting_runs(route):
        stage = by_name.get(stage_at[run.start])
        if stage is None or stage.kind not in ("encoder", "bottleneck"):
            continue
        merge = _merge_of(flow, run, order)
        begin = run.start
        if stage.level is not None and stage.level > run.level - SAME:
            while begin and stage_at[begin - 1] == stage.name:
                begin -= 1
        paths = _called_between(flow, begin, run.entrances, merge)
        inside |= {path for path in paths if stage_of_leaf[path] == stage.name}
    return frozenset(inside)


def _contracting_runs(route: Route) -> list[_Run]:
    """The stretches of the main path that lie deeper than the one before, each with the nodes where paths enter it."""
    runs: list[_Run] = []
    for position, level in enumerate(route.levels):
        if level is not None and (not runs or abs(level - runs[-1].level) > SAME):
            runs.append(_Run(level, position, position))
        if runs:
            runs[-1].stop = position + 1
    _find_entrances(route.flow, runs)
    return [after for before, after in pairwise(runs) if after.level > before.level]


def _find_entrances(flow: Flow, runs: list[_Run]) -> None:
    """Find the nodes where a path steps down from one run into the next and comes to the main path within it."""
    starts = [run.start for run in runs]
    convolved = next((i for i, node in enumerate(flow.main) if flow.weighted[node]), len(flow.main))
    for run in runs[1:]:
        run.entrances.append(flow.main[run.start])
    for node in flow.nodes:
        index = bisect_right(starts, flow.feeds[node]) - 1
        level = flow.level[node]
        if index < 1 or level is None or node in flow.position or flow.feeds[node] == NOWHERE:
            continue
        before, run = runs[index - 1], runs[index]
        if run.level < before.level or abs(level - run.level) > SAME:
            continue
        for source in flow.sources[node]:
            known = flow.level[source]
            from_raw_input = flow.left[source] < convolved < run.start
            steps_down = known is not None and abs(known - before.level) <= SAME
            if steps_down and flow.left[source] >= before.start and not from_raw_input:
                run.entrances.append(node)
                break


def _merge_of(flow: Flow, run: _Run, order: Mapping[fx.Node, int]) -> fx.Node:
    """The first node that every path from the entrances of a run to the run's end passes through.

    The immediate postdominator of what lies before the run, found in one sweep: nodes are in topological order.
    """
    if len(run.entrances) == 1:
        return run.entrances[0]
    first, until = min(order[node] for node in run.entrances), order[flow.main[run.stop - 1]]
    stretch = flow.nodes[first : until + 1]
    needed = set(stretch[-1:])
    for node in reversed(stretch):
        if needed.intersection(flow.users[node]):
            needed.add(node)
    left, entered, furthest = needed.intersection(run.entrances), set[fx.Node](), first
    for node in stretch:
        if node not in needed or not (node in left or entered.intersection(flow.sources[node])):
            continue
        left.discard(node)
        if not left and order[node] >= furthest:  # no edge passes it by
            return node
        entered.add(node)
        furthest = max(furthest, *(order[user] for user in flow.users[node] if user in needed))
    return stretch[-1]


def _called_between(flow: Flow, begin: int, entrances: Sequence[fx.Node], merge: fx.Node) -> set[str]:
    """Leaf modules on the way to `merge` from main-path position `begin`, or from the entrances if one lies there."""
    before = begin - 1
    stop_at = set(entrances) if flow.main[begin] in entrances else set()
    paths: set[str] = set()
    waiting, seen = [merge], {merge}
    while waiting:
        node = waiting.pop()
        if node.op == "call_module":
            paths.add(str(node.target))
        if node in stop_at:
            continue
        for source in flow.sources[node]:
            if source not in seen and flow.left[source] >= before and flow.position.get(source) != before:
                seen.add(source)
                waiting.append(source)
    return paths
