"""What came of a calibration: the networks, the steps that were taken, and the layers that have other weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from ..analysis.channel_order import Orders
from ..analysis.layers import signature
from ..analysis.network import Network
from ..graph.call_spec import CallSpec
from ..rewriting.diff import Diff, Edit, Refusal
from ..rewriting.fate import Fate
from ..rewriting.pass_api import Skip

NAME = "calibration"
"""What the last diff of a calibrated result is called"""


@dataclass(frozen=True)
class Stage:
    """One step of a calibration: the output's relative error after it, on inputs that were held out of it.

    A step that left it no smaller was not kept: the next one started from where that one did.
    """

    name: str
    error: float
    kept: bool = True


@dataclass(frozen=True)
class Calibrated:
    """What came out.

    Attributes:
        networks: after every pass, with channels in their new order; last, the one with the weights that did best.
        diff: what was fitted and moved, and what could not be.
        orders: the new order of channels.
        stages: every step that was taken.
        evaluation: some of the inputs that were not fitted to, to verify on.
    """

    networks: tuple[Network, ...]
    diff: Diff
    orders: Orders
    stages: tuple[Stage, ...]
    evaluation: tuple[CallSpec, ...]


def with_what_stayed(network: Network, earlier: Sequence[Network]) -> Network:
    """A network in which modules that have the same values as earlier ones are these again."""
    modules = dict(network.program.modules)
    for path, module in modules.items():
        for other in earlier:
            if _same_state(module, other.program.modules[path]):
                modules[path] = other.program.modules[path]
                break
    return Network(replace(network.program, modules=modules), network.anatomy)


def set_modes(network: Network, like: Network) -> None:
    """Put copies, which were made in eval mode, into the modes of what they are copies of."""
    for path, module in network.program.modules.items():
        for inner, other in zip(module.modules(), like.program.modules[path].modules(), strict=True):
            inner.training = other.training


def _same_state(one: nn.Module, other: nn.Module) -> bool:
    mine, theirs = one.state_dict(keep_vars=True), other.state_dict(keep_vars=True)
    return all(torch.equal(tensor, theirs[key]) for key, tensor in mine.items())


def edits_of(
    inherited: Network, ordered: Network, final: Network, notes: Mapping[str, str], refused: Mapping[str, Skip]
) -> list[Edit]:
    """The layers and tensors whose values are others than without calibration."""
    edits, seen = [], set[int]()
    for path, module in final.program.modules.items():
        if module is inherited.program.modules[path] or id(module) in seen or not module.state_dict():
            continue
        seen.add(id(module))
        moved = module is ordered.program.modules[path]
        note = "channels in another order" if moved else notes.get(path, "tuned")
        if not moved and path not in notes and path in refused:
            note = f"tuned; not fitted: {refused[path].reason}"
        edits.append(_edit(final, path, signature(module), Fate.REORDERED if moved else Fate.CALIBRATED, note))
    for path, tensor in final.program.tensors.items():
        if tensor is not inherited.program.tensors[path]:
            short = f"{type(tensor).__name__}({'x'.join(map(str, tensor.shape))})"
            edits.append(_edit(final, path, short, Fate.REORDERED, "channels in another order"))
    return edits


def _edit(network: Network, path: str, short: str, fate: Fate, note: str) -> Edit:
    stage = network.anatomy.stage_of(path)
    return Edit(path, stage.name if stage else None, short, short, 0, 0, fate, False, note)


def refusal_of(network: Network, path: str, why: Skip) -> Refusal:
    stage = network.anatomy.stage_of(path)
    layer = signature(network.program.modules[path])
    return Refusal(path, stage.name if stage else None, layer, why.code, why.reason)
