"""From a `Program` to its `Anatomy`."""

from __future__ import annotations

from collections.abc import Sequence

from torch import fx

from ...graph.program import Program
from .build import describe_shapes, describe_skips, describe_stages, describe_transitions, describe_units
from .flow import Flow
from .membership import Membership
from .roles import find_roles, roles_aside, u_shapes
from .skips import Bypasses, LongSkip, awaited, connections, long_merges
from .transitions import transition_paths
from .types import Anatomy, UShape
from .units import find_route


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
    roles = find_roles(route, merges, awaited(bypasses, merges, shapes), shapes)
    roles |= dict(roles_aside(bypasses, merges, roles))
    membership = Membership(route, roles)
    stages = describe_stages(route, roles, membership)
    inputs, outputs = _outer_convolutions(flow)
    passes = tuple(describe_shapes(shapes, stages))
    is_unet, reason = _judge(passes, skips)
    return Anatomy(
        is_unet=is_unet,
        reason=reason,
        stages=stages,
        roles={path: role.label for path, role in roles.items()},
        skips=tuple(describe_skips(route, skips, membership)),
        levels={node.name: flow.level[node] for node in flow.nodes},
        stage_by_path=membership.leaves,
        transition_paths=transition_paths(route, roles, membership.at, membership.leaves, stages),
        input_paths=inputs,
        output_paths=outputs,
        main_path=tuple(node.name for node in flow.main),
        units=describe_units(route, roles, membership),
        transitions=tuple(describe_transitions(route, membership)),
        passes=passes,
    )


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


def _judge(passes: Sequence[UShape], skips: Sequence[LongSkip]) -> tuple[bool, str]:
    downs = sum(shape.downs for shape in passes)
    ups = sum(shape.ups for shape in passes)
    returning = any(shape.downs and shape.ups for shape in passes)
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
