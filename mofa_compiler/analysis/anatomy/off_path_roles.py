"""What the units do that convolve but not on the main path: said by where they leave it and where they come back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import fx

from .flow import NOWHERE, is_deeper
from .skips import Bypasses, LongSkip
from .types import Role


def roles_aside(bypasses: Bypasses, skips: Sequence[LongSkip], roles: Mapping[str, Role]) -> Iterator[tuple[str, Role]]:
    """The role of every unit that has none on the main path.

    "conditioning" does not work on the image (another input, a pooled vector), "side input" reads the image itself, an
    "aux head" makes another output, "skip" works on a long skip connection; a "branch" belongs to the stage that it
    comes back to.
    """
    route = bypasses.route
    flow = route.flow
    last_up = max((visit.start for visit in route.visits if visit.goes_up), default=-1)
    last_skip = max((skip.target for skip in skips), default=-1)
    for path, nodes in sorted(route.members.items()):
        if path in roles or not any(flow.weighted[node] for node in nodes):
            continue
        leaves = max(flow.left[node] for node in nodes)
        joins = min(flow.feeds[node] for node in nodes)
        if leaves < 0 or all(flow.level[node] is None for node in nodes):
            yield path, Role("conditioning")
        elif joins == NOWHERE:
            yield path, Role("aux head")
        elif not bypasses.convolved[leaves]:
            yield path, Role("branch" if _in_first_stage(bypasses, joins, roles) else "side input")
        elif not _decodes(bypasses, nodes) and any(bypasses.long_source(node, joins) is not None for node in nodes):
            yield path, Role("skip")
        else:
            joined = route.visit_at[joins].path
            in_head = joined is None or (joined in roles and "head" in roles[joined].kind)
            past_decoders = joins >= last_up and joins > last_skip
            yield path, Role("aux head" if in_head and past_decoders else "branch")


def _decodes(bypasses: Bypasses, nodes: Sequence[fx.Node]) -> bool:
    """Whether a unit goes up itself and draws on the bottom and other levels: a decoder beside the main path."""
    levels = [level for node in nodes if (level := bypasses.route.flow.level[node]) is not None]
    drawn_on = {level for node in nodes for level in bypasses.departures[node]}
    bottom = max(level for level in bypasses.known if level is not None)
    return len(drawn_on) > 1 and bottom in drawn_on and is_deeper(levels[0], levels[-1])


def _in_first_stage(bypasses: Bypasses, position: int, roles: Mapping[str, Role]) -> bool:
    """Whether the main path has neither changed its level nor come to a second stage before a position."""
    visits = bypasses.route.visits
    before = {roles[path] for visit in visits if visit.start < position and (path := visit.path or "") in roles}
    return len(before) <= 1 and bypasses.known[position] == bypasses.known[0]
