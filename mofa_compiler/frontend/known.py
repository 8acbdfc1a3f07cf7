"""Tensors whose values no input decides: constants that forward makes, such as the mean that it subtracts.

They are made on the input's device, and so are nodes of the graph. Code may decide on their values all the same.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

from .proxies import IN_PLACE
from .randomness import makes_noise


class Constants(Protocol):
    """What is asked of a tracer."""

    def tensor(self, path: str) -> Any:
        """What a get_attr node reads."""


def known_value(node: fx.Node, constants: Constants) -> Any:
    """What a node returns, computed on the CPU; None where that depends on an input, a weight, a size or on chance."""
    order: dict[fx.Node, None] = {}
    if not _collect(node, order):
        return None
    values: dict[fx.Node, Any] = {}
    with torch.no_grad():
        for each in order:
            values[each] = _computed(each, values, constants)
    return values[node]


def _collect(node: fx.Node, order: dict[fx.Node, None]) -> bool:
    """The nodes that it takes, in order; whether all of them are constant."""
    if node in order or isinstance(node.meta.get("val"), torch.device):
        return True
    plain = node.op == "get_attr" and str(node.target).startswith("_tensor_constant")
    computed = node.op in ("call_function", "call_method") and not makes_noise(node)
    if not (plain or computed) or any(map(_writes, node.users)):
        return False
    if not node.all_input_nodes and not plain and not isinstance(node.meta.get("val"), Tensor):
        return False
    if not all(_collect(source, order) for source in node.all_input_nodes):
        return False
    order[node] = None
    return True


def _writes(node: fx.Node) -> bool:
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return node.target in IN_PLACE or (name.endswith("_") and not name.endswith("__"))


def _computed(node: fx.Node, values: dict[fx.Node, Any], constants: Constants) -> Any:
    if node.op == "get_attr":
        return constants.tensor(str(node.target)).cpu()

    def value(source: fx.Node) -> Any:
        return values.get(source, torch.device("cpu"))

    args, kwargs = map_arg(node.args, value), map_arg(node.kwargs, value)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    return node.target(*args, **kwargs)  # type: ignore[operator]
