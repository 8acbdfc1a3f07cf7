"""Where in a network a pass works: stages by kind or by name, or globs over layer paths."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from mofa_compiler.analysis.anatomy import Stage
from mofa_compiler.analysis.layers import Layer
from mofa_compiler.analysis.network import Network
from mofa_compiler.nn.partial_conv import PConv2d
from mofa_compiler.rewriting import RoadmapError, Skip, nearest, unknown_subclass

KINDS = ("middle", "cheap")
"""Words for stages: those one level above the bottleneck, and those that cost little (`Network.is_cheap`)"""


def check_places(pass_name: str, where: Sequence[str], network: Network, kinds: Sequence[str] = KINDS) -> None:
    """Refuse what is neither one of `kinds`, nor a stage, nor a glob that some convolution's path matches.

    Raises:
        RoadmapError: naming the pass and the entry of its option `where`.
    """
    known = {*kinds, *(stage.name for stage in network.anatomy.stages)}
    for entry in where:
        if entry not in known and not any(fnmatchcase(path, entry) for path in network.layers):
            raise RoadmapError(
                f"{pass_name}: where={entry!r} is neither {', '.join(kinds)}, a stage nor a path of a convolution"
                + nearest(entry, known),
                code="unknown-name",
            )


def pconv_inside(layer: Layer, network: Network, where: Sequence[str], cheap_below: float) -> PConv2d | Skip | None:
    """The `PConv2d` that a layer is, where it is in one of these places; None for a layer of another kind."""
    module = layer.module
    if not isinstance(module, PConv2d):
        return None
    return unknown_subclass(module, PConv2d) or outside(layer, network, where, cheap_below) or module


def outside(layer: Layer, network: Network, where: Sequence[str], cheap_below: float) -> Skip | None:
    """Why a layer is in none of these places; None for one that is.

    `elsewhere` are the stages that are neither in the middle nor cheap, with the transitions into them; otherwise a
    transition into a stage is none of its layers, unless a glob names it.
    """
    if layer.path in where or any(fnmatchcase(layer.path, entry) for entry in where):
        return None
    stage = layer.stage
    no_unet = "" if network.anatomy.is_unet else f"the network is no U-Net ({network.anatomy.reason})"
    if stage is None:
        return Skip("no-unet", no_unet) if no_unet else Skip("place", "belongs to no stage")
    reasons = []
    for entry in where:
        if no_unet and entry in (*KINDS, "elsewhere"):
            chosen, reason = False, no_unet
        elif entry == "middle":
            chosen, reason = _in_middle(stage, network)
        elif entry == "cheap":
            chosen, reason = network.is_cheap(stage, cheap_below)
        elif entry == "elsewhere":
            found = (_in_middle(stage, network), network.is_cheap(stage, cheap_below))
            chosen, reason = not any(yes for yes, _ in found), next((why for yes, why in found if yes), "")
        else:
            chosen, reason = stage.name == entry, f"is in {stage.name}"
        if chosen:
            aside = layer.in_transition and entry != "elsewhere"
            return Skip("place", f"is in the transition into {stage.name}") if aside else None
        reasons.append(reason)
    return Skip("no-unet" if no_unet in reasons else "place", "; ".join(dict.fromkeys(reasons)))


def _in_middle(stage: Stage, network: Network) -> tuple[bool, str]:
    middle = network.anatomy.middle()
    names = " and ".join(stage.name for stage in middle)
    found = stage in middle
    return found, f"{stage.name} is {'' if found else 'not '}in the middle" + (f" ({names})" if names else "")
