"""What a pass would change, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..network import Network
from ..rewriting import Pass, rewrite


@dataclass(frozen=True)
class Change:
    """Change in parameters and MACs, and whether what is computed stays the same."""

    parameters: int
    macs: int
    exact: bool


def savings(network: Network, *passes: Pass) -> Mapping[str, Change]:
    """What passes would change, one after the other, by path of the layer."""
    changes: dict[str, Change] = {}
    for pass_ in passes:
        network, diff = rewrite(network, pass_)
        for edit in diff.edits:
            so_far = changes.get(edit.path, Change(0, 0, True))
            changes[edit.path] = Change(
                so_far.parameters + edit.parameters, so_far.macs + edit.macs, so_far.exact and edit.exact
            )
    return changes
