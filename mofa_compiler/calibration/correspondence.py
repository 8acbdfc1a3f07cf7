"""Where in the original network the output of a rewritten layer can be compared."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from ..graph.macs import function_name
from ..graph.plain_layers import is_plain, is_torchs
from ..graph.program import Program
from ..rewriting.layer_surgery import Selection, origin, selection
from .lockstep import Batch, Lockstep

_ADDITIONS: frozenset[Any] = frozenset([operator.add, operator.iadd, torch.add])


@dataclass(frozen=True)
class Link:
    """A place behind a layer where both networks should have the same value.

    Attributes:
        origin: name of the node of the original network there.
        chain: the rewritten network's nodes from the layer to there: each either keeps constants and mixes pixels in
            every channel alike, so that it commutes with a pointwise convolution, or adds something that is known.
        known: what such an addition adds, by its name.
        clipped: whether a ReLU alone reads the value there: below zero it does not matter.
        selection: what of the original's channels the rewritten network has there; None: all.
    """

    origin: str
    chain: tuple[fx.Node, ...] = ()
    known: tuple[tuple[str, fx.Node], ...] = ()
    clipped: bool = False
    selection: Selection | None = None

    @property
    def mixing(self) -> tuple[fx.Node, ...]:
        """What of the chain does something to pixels."""
        added = dict(self.known)
        return tuple(node for node in self.chain if node.name not in added)

    def offset(self, networks: Lockstep, batch: Batch) -> Tensor | None:
        """What the additions of the chain come to at the place of comparison."""
        added, offset = dict(self.known), None
        for node in self.chain:
            if node.name in added:
                more = batch[networks.rewritten, added[node.name]]
                offset = more if offset is None else offset + more
            elif offset is not None:
                offset = networks.rewritten.apply(batch, node, offset)
        return offset


def link(node: fx.Node, program: Program, is_known: Callable[[fx.Node], bool], here: bool = False) -> Link | None:
    """The farthest place behind a linear layer's call up to which all is linear; None where there is none.

    `is_known` tells whether a value can be had before the layer's own. With `here` only the call itself is a place.
    """
    chain: list[fx.Node] = []
    known: list[tuple[str, fx.Node]] = []
    found = None
    while True:
        name = origin(node)
        if name is not None:
            found = Link(name, tuple(chain), tuple(known), _is_clipped(node, program), selection(node))
        following = sole_reader(node)
        if following is None or here:
            return found
        if following.target in _ADDITIONS and not following.kwargs and len(following.args) == 2:
            other = following.args[1] if following.args[0] is node else following.args[0]
            if not isinstance(other, fx.Node) or other is node or not _same_shape(other, following):
                return found
            if not is_known(other):
                return found
            known.append((following.name, other))
        elif not commutes(following, program) or following.args[0] is not node:
            return found
        chain.append(following)
        node = following


def _is_clipped(node: fx.Node, program: Program) -> bool:
    """Whether a ReLU alone reads a value."""
    reader = sole_reader(node)
    if reader is None:
        return False
    if reader.op == "call_module":
        return type(program.modules[str(reader.target)]) in (nn.ReLU, nn.ReLU6)
    return reader.op.startswith("call") and function_name(reader) in ("relu", "relu6")


def sole_reader(node: fx.Node) -> fx.Node | None:
    """What alone reads a value; asking for its size is no reading."""
    readers = [user for user in node.users if user.op == "output" or _is_tensor(user)]
    return readers[0] if len(readers) == 1 else None


def commutes(node: fx.Node, program: Program) -> bool:
    """Whether a node keeps constants and does the same to every channel: a resize, an average pooling, an identity."""
    if node.op == "output" or len(node.all_input_nodes) != 1:
        return False
    if node.op == "call_module":
        module = program.modules[str(node.target)]
        if is_plain(module, nn.AvgPool2d):
            return module.divisor_override is None and (not module.padding or not module.count_include_pad)
        return is_torchs(module, nn.Upsample, nn.Identity, nn.modules.dropout._DropoutNd)
    return node.target is F.interpolate


def _is_tensor(node: fx.Node) -> bool:
    return any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(node.meta.get("val")))


def _same_shape(one: fx.Node, other: fx.Node) -> bool:
    a, b = one.meta.get("val"), other.meta.get("val")
    return isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape == b.shape
