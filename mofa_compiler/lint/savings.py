"""What a pass would save: its changes in parameters and MACs, layer by layer, without its numerical work.

The pass is carried out on a copy of the network whose weights are on the meta device, so that what it says here is what
its diff says after a rewrite.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ..diff import Diff
from ..network import Network
from ..rewriting import Pass, match, rewrite
from ..surgery import Surgery


@dataclass(frozen=True)
class Change:
    """Change in parameters, and in MACs of one forward pass on the example input; negative where something is saved."""

    parameters: int
    macs: int


def savings(network: Network, pass_: Pass) -> Mapping[str, Change] | None:
    """What a pass would change, by path of the layers that it matches, in execution order.

    The figures are those of all its matches together. What becomes of a neighbour (an adjusted convolution behind, one
    that is merged away) counts for the layer whose rewriting caused it; where several adjust the same one, each counts
    for what it added. Together they are the difference of the totals in the pass's diff, but for weights whose values
    decide: see `mofa_compiler.inherit`.

    None for a pass whose changes are not known without carrying it out: one that looks at no layer by itself, such as
    a `GraphLowering` (see `lowered`), or that cannot do without values, as another package's may not.

    Raises:
        RoadmapError: the pass makes no sense on this network, as `rewrite` says, too.
    """
    if type(pass_).carry_out is not Pass.carry_out:
        return None
    pass_.prepare(network)
    matches, _ = match(network, pass_)  # on the values: some decide whether a layer matches
    shapes = network.without_values
    surgery, before = Surgery(shapes, pass_), Change(0, 0)
    changes: dict[str, Change] = {}
    try:
        with torch.random.fork_rng(devices=[]):  # new modules draw random weights
            for layer, found in matches:
                surgery.replace(shapes.layers[layer.path], found)
                after = Change(sum(e.parameters for e in surgery.edits), sum(e.macs for e in surgery.edits))
                changes[layer.path] = Change(after.parameters - before.parameters, after.macs - before.macs)
                before = after
    except Exception:  # whatever a pass raises that was written for weights with values
        return None
    return changes


def lowered(network: Network, pass_: Pass) -> Diff:
    """The diff of a pass that is carried out with all its work, for those that `savings` knows nothing of.

    Raises:
        RewriteError, RoadmapError: as `rewrite` does.
    """
    device = network.program.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        return rewrite(network, pass_)[1]
