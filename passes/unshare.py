"""Give every call of a shared layer weights of its own.

A layer that is called several times has one set of weights for all that it is fed. With copies of them it computes the
same, at the same MACs; but what later passes put in its place, and what calibration fits, may differ from call to call.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic.dataclasses import dataclass
from torch import fx

from mofa_compiler.rewriting import FROZEN, Fate, GraphPass, Preparation, Rewiring, Skip, is_image


@dataclass(frozen=True, config=FROZEN)
class Unshare(GraphPass, Preparation):
    """Copy layers that are called several times, one copy a call. Exact: more parameters, in the same time.

    What is in the network once stays so, and a roadmap of a network that shares nothing is carried out without this
    pass. The copies of `block.conv` are `block.conv.0`, `block.conv.1` and so on, in execution order.
    """

    name: ClassVar[str] = "unshare"
    offered_under_bound: ClassVar[bool] = True

    def rewire(self, wiring: Rewiring) -> None:
        calls: dict[str, list[fx.Node]] = {}
        for node in wiring.nodes:
            module = wiring.module(node)
            if module is not None and module.state_dict() and self.looks_at(str(node.target)):
                calls.setdefault(str(node.target), []).append(node)
        for path, nodes in calls.items():
            if len(nodes) == 1:
                continue
            why = wiring.bound(path)
            if why is None and (others := [name for name in wiring.aliases[path] if name != path]):
                why = Skip("tied", f"{path} is {others[0]}, too, and what has two names is meant to be one")
            if why:
                wiring.refuse(path, wiring.describe(path), why)
            else:
                _copy(wiring, path, nodes)


def _copy(wiring: Rewiring, path: str, nodes: list[fx.Node]) -> None:
    before, errors = wiring.describe(path), [0.0]
    old = wiring.exactly(path)
    for node, copied in zip(nodes, wiring.spread(path, [old] * len(nodes)), strict=True):
        source = node.args[0]
        if not isinstance(source, fx.Node) or not is_image(source):  # a copy of weights, which nothing is drawn for
            wiring.retarget(node, copied)
            continue
        was = wiring.piece(source, node)
        wiring.retarget(node, copied)
        errors.append(wiring.check(path, was, wiring.piece(source, node), source.meta["val"].shape[1]))
    wiring.release(path)
    note = f"one copy for each of {len(nodes)} calls"
    wiring.tell(path, before, f"{len(nodes)} × {before}", Fate.EXACT, error=max(errors), note=note)
