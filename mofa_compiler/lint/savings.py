"""What a pass would save: its changes in parameters and MACs, layer by layer, without its numerical work.

The pass is carried out on a copy of the network whose weights are on the meta device, so that what it says here is what
its diff says after a rewrite.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..analysis.layers import Layer
from ..analysis.network import Network
from ..base.torch_state import own_randomness
from ..rewriting.diff import Diff
from ..rewriting.engine import match, rewrite
from ..rewriting.fate import Fate
from ..rewriting.graph_pass import GraphPass
from ..rewriting.layer_surgery import Surgery
from ..rewriting.pass_api import Match, Pass


@dataclass(frozen=True)
class Change:
    """Change in parameters, and in MACs of one forward pass on the example input; negative where something is saved.

    `exact`: whether the pass claims that what is computed stays the same.
    """

    parameters: int
    macs: int
    exact: bool = False

    def then(self, other: Change) -> Change:
        """This change, and another one after it."""
        return Change(self.parameters + other.parameters, self.macs + other.macs, self.exact and other.exact)


def savings(network: Network, *passes: Pass) -> Mapping[str, Change] | None:
    """What passes would change, one after the other, by path of the layers that they match, in execution order.

    The figures are those of all matches together. What becomes of a neighbour (an adjusted convolution behind, one that
    is merged away) counts for the layer whose rewriting caused it; where several adjust the same one, each counts for
    what it added. Together they are the difference of the totals in the passes' diffs, but for weights whose values
    decide: see `mofa_compiler.weights`.

    None for passes whose changes are not known without carrying them out: one that looks at no layer by itself, such as
    a `GraphPass` (see `lowered`), or that cannot do without values, as another package's may not.

    Raises:
        RoadmapError: a pass makes no sense on this network, as `rewrite` says, too.
    """
    changes: dict[str, Change] = {}
    shapes = network.without_values
    for pass_ in passes:
        if isinstance(pass_, GraphPass):
            return None
        pass_.prepare(network)
        surgery = Surgery(shapes, pass_)
        try:
            matches, _ = match(network, pass_)  # on values, while there are any: some decide whether a layer matches
            with own_randomness():  # new modules draw random weights
                for layer, found in matches:
                    change = _change(surgery, shapes.layers[layer.path], found)
                    earlier = changes.get(layer.path)
                    changes[layer.path] = earlier.then(change) if earlier else change
        except Exception:  # whatever a pass raises that was written for weights with values
            return None
        network = shapes = surgery.finish()
    return changes


def _change(surgery: Surgery, layer: Layer, found: Match) -> Change:
    """What replacing one layer adds to the edits so far."""
    count, before = len(surgery.edits), _sums(surgery)
    surgery.replace(layer, found)
    after = _sums(surgery)
    fates = [edit.fate for edit in surgery.edits[count:] if edit.path == layer.path]
    exact = all(fate in (Fate.EXACT, Fate.MERGED) for fate in fates)  # claimed: there are no values to check it on
    return Change(after[0] - before[0], after[1] - before[1], exact)


def _sums(surgery: Surgery) -> tuple[int, int]:
    return sum(edit.parameters for edit in surgery.edits), sum(edit.macs for edit in surgery.edits)


def lowered(network: Network, pass_: Pass) -> Diff:
    """The diff of a pass that is carried out with all its work, for those that `savings` knows nothing of.

    Raises:
        RewriteError, RoadmapError: as `rewrite` does.
    """
    with own_randomness():
        return rewrite(network, pass_)[1]
