"""The engine that carries out a pass: what may be touched, the graph work, the checks, the diff."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from itertools import chain

from ..analysis.layers import Layer, signature
from ..analysis.network import Network
from ..base.errors import RewriteError
from ..base.torch_state import own_randomness
from .diff import Diff, Edit, Refusal
from .graph_pass import GraphPass
from .graph_rewriter import Rewiring
from .layer_surgery import Surgery
from .pass_api import Lowering, Match, Pass, Phase, Skip
from .roadmap import Roadmap
from .shape_check import check_shapes


def rewrite(network: Network, pass_: Pass) -> tuple[Network, Diff]:
    """Carry out one pass.

    Raises:
        RewriteError: the pass built something that does not fit, or is not as exact as it claims.
    """
    after, edits, skips = _prepared(network, pass_)
    return after, Diff(pass_.name, pass_.options, tuple(edits), tuple(skips), network.totals, after.totals)


def tried(network: Network, pass_: Pass) -> tuple[Network, list[Edit]]:
    """`rewrite` without the totals: the network after it is not surveyed, which takes longer than the rewrite itself.

    Raises:
        RewriteError: as `rewrite`.
    """
    after, edits, _ = _prepared(network, pass_)
    return after, edits


def without_idle_preparations(network: Network, roadmap: Roadmap, told: Collection[str]) -> Roadmap:
    """A roadmap without the preparations that find nothing of their kind, or, of those not told of, nothing to do."""
    preparations, *rest = roadmap.by_phase
    needed = []
    for pass_ in preparations:
        network, diff = rewrite(network, pass_)
        if diff.edits or (pass_.name in told and diff.skips):
            needed.append(pass_)
    return replace(roadmap, passes=(*needed, *chain.from_iterable(rest)))


def _prepared(network: Network, pass_: Pass) -> tuple[Network, list[Edit], list[Refusal]]:
    """What `_carry_out` makes, by a pass that knows the network."""
    pass_.prepare(network)
    with own_randomness():  # new modules draw random weights before they are filled
        after, edits, skips = _carry_out(network, pass_)
    if pass_.phase is Phase.PREPARE:  # others are fitted to what it left, which has all of its own channels
        for node in after.program.graph.nodes:
            node.meta.pop("selection", None)
    return after, edits, skips


def _carry_out(network: Network, pass_: Pass) -> tuple[Network, list[Edit], list[Refusal]]:
    """The network after a pass, what the pass changed, and what of its kind it left alone."""
    if isinstance(pass_, GraphPass):
        wiring = Rewiring(network, pass_)
        pass_.rewire(wiring)
        if not isinstance(pass_, Lowering):  # whose every edit was checked to compute the same
            check_shapes(wiring)
        if untold := wiring.untold:
            names = ", ".join(untold)
            raise RewriteError(
                f"{pass_.name}: no edit tells of what changed in {names}: a bug in this pass", code="bug"
            )
        return wiring.finish(), wiring.edits, list(wiring.refusals.values())
    matches, skips = match(network, pass_)
    surgery = Surgery(network, pass_)
    for layer, found in matches:
        surgery.replace(layer, found)
    return surgery.finish(), surgery.edits, skips


def match(network: Network, pass_: Pass) -> tuple[list[tuple[Layer, Match]], list[Refusal]]:
    """The layers that a pass would rewrite, and those of its kind that it would not."""
    matches: list[tuple[Layer, Match]] = []
    skips: list[Refusal] = []
    for layer in (*network.layers.values(), *network.functional):
        found = match_layer(layer, pass_, network)
        if isinstance(found, Match):
            matches.append((layer, found))
        elif found is not None:
            stage = layer.stage.name if layer.stage else None
            skips.append(Refusal(layer.path, stage, signature(layer.module, layer.function), found.code, found.reason))
    return matches, skips


def match_layer(layer: Layer, pass_: Pass, network: Network) -> Match | Skip | None:
    """What a pass would do with one layer; None for one that is not its kind, or that its `layers` do not name."""
    if not pass_.looks_at(layer.path):
        return None
    found = pass_.match(layer, network)
    if isinstance(found, Match) or (found and (layer.function or layer.altered)):
        return _forbidden(layer) or found
    return found


def _forbidden(layer: Layer) -> Skip | None:
    if layer.function:
        reason = f"is a functional convolution ({layer.function} in forward), whose weight belongs to no layer"
        return Skip("functional", reason)
    if layer.is_input:
        return Skip("input", "is the input convolution")
    if layer.is_output:
        return Skip("output", "is the output convolution")
    if layer.tied:
        return Skip("tied", "shares a parameter with another module, which a new module would not")
    if layer.altered:
        return Skip("altered", f"{layer.altered}, which a new module would lose")
    if not layer.is_batched:
        return Skip("unbatched", "reads (C, H, W) without a batch dimension, where a new module would split the rows")
    if any(parameter.is_complex() for parameter in layer.module.parameters()):
        return Skip("complex", "has complex weights")
    return None
