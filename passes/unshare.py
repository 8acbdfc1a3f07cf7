"""Give every call of a shared layer weights of its own.

A layer that is called several times has one set of weights for all that it is fed. What it computes stays the same with
copies of them, at the same MACs; but what later passes put in its place, and calibration fits, may then differ from call
to call.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic.dataclasses import dataclass
from torch import Tensor, fx, nn

from mofa_compiler.rewriting import FROZEN, Fate, GraphPass, Pass, Preparation, Rewiring, is_image


@dataclass(frozen=True, config=FROZEN)
class Unshare(GraphPass, Preparation):
    """Copy layers that are called several times, one copy a call: more parameters, in the same time.

    The copies of `block.conv` are `block.conv.0`, `block.conv.1` and so on, in execution order.
    """

    name: ClassVar[str] = "unshare"

    @classmethod
    def example(cls) -> tuple[Pass, nn.Module, Tensor]:
        shared = nn.Conv2d(8, 8, 3, padding=1)
        model = nn.Sequential(nn.Conv2d(3, 8, 1), shared, nn.ReLU(), shared, nn.Conv2d(8, 3, 1))
        return cls(), model, Tensor(1, 3, 16, 16).uniform_()

    def rewire(self, wiring: Rewiring) -> None:
        calls: dict[str, list[fx.Node]] = {}
        for node in wiring.nodes:
            module = wiring.module(node)
            if module is not None and module.state_dict() and self.looks_at(str(node.target)):
                calls.setdefault(str(node.target), []).append(node)
        for path, nodes in calls.items():
            if len(nodes) == 1:
                continue
            if why := wiring.bound(path):
                wiring.refuse(path, wiring.describe(path), why)
            else:
                _copy(wiring, path, nodes)


def _copy(wiring: Rewiring, path: str, nodes: list[fx.Node]) -> None:
    before, errors = wiring.describe(path), [0.0]
    old = wiring.exactly(path)
    for node, copied in zip(nodes, wiring.spread(path, [old] * len(nodes)), strict=True):
        source = node.args[0]
        was = wiring.piece(source, node) if is_image(source) else None
        wiring.retarget(node, copied)
        if was is not None:
            now = wiring.piece(source, node)
            errors.append(wiring.check(path, was, now, source.meta["val"].shape[1]))
    wiring.release(path)
    note = f"one copy for each of {len(nodes)} calls"
    wiring.tell(path, before, f"{len(nodes)} × {before}", Fate.EXACT, error=max(errors), note=note)
