"""Sizes that depend on the values of tensors: how many elements a mask selects.

Such values are ordinary ones when a graph runs. While it is traced, a mask counts as if it selected every element, so
no decision may be made on how many they are.
"""

from __future__ import annotations

import operator
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, fx

_SELECTING = {"nonzero", "argwhere", "masked_select"}
_SHAPED_BY_FIRST = {
    *("index_put", "index_put_", "masked_scatter", "masked_scatter_", "index_copy", "index_copy_", "index_add"),
    *("index_add_", "scatter", "scatter_", "scatter_add", "scatter_add_", "copy_", "setitem"),
}
"""Operations that return what has the shape of their first argument"""


def is_of_unknown_size(node: fx.Node, known: Collection[fx.Node]) -> bool:
    """Whether values decide on a new node's shape, or on the number that it is, as they do on those of `known` ones."""
    name = str(node.target) if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    if name in _SELECTING or (name == "where" and len(node.all_input_nodes) == 1):
        return True
    if node.target is operator.getitem and _selects(node.args[1]):
        return True
    value = node.meta.get("val")
    if value is None or (isinstance(value, Tensor) and value.dim() == 0):
        return False
    sources: Any = node.args[:1] if name in _SHAPED_BY_FIRST else node.all_input_nodes
    return any(source in known for source in sources)


def _selects(index: Any) -> bool:
    """Whether there is a mask in an index."""
    if isinstance(index, (tuple, list)):
        return any(map(_selects, index))
    value = index.meta.get("val") if isinstance(index, fx.Node) else index
    return isinstance(value, Tensor) and value.dtype in (torch.bool, torch.uint8) and value.dim() > 0
