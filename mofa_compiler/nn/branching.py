"""Modules that branch, which passes build and the engine spreads into the graph, one node a call inside.

A network holds none of them afterwards: its graph, its source and its exports have the plain modules in them, each at
its own path below that of the layer that was rewritten.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx, nn


class Branches(nn.Module):
    """What reads one tensor and is more than a chain; `forward` has to be one that torch.fx can trace."""


class TwoProducts(Branches):
    """`pointwise(cat([convolution(x[:, :c]), x[:, c:]]))` as a sum of two products: nothing is concatenated.

    Args:
        channels: c, how many are convolved.
        convolved: from these channels to the output's.
        untouched: from all channels to the output's; it has to leave the first c out of account.
    """

    def __init__(self, channels: int, convolved: nn.Sequential, untouched: nn.Sequential):
        super().__init__()
        self.channels = channels
        self.convolved = convolved
        self.untouched = untouched

    def forward(self, x: Tensor) -> Tensor:
        return self.untouched(x) + self.convolved(x[:, : self.channels])  # type: ignore[no-any-return]


class TwoSlices(TwoProducts):
    """The same with only the other channels read by `untouched`: another slice, and no product with zeros."""

    def forward(self, x: Tensor) -> Tensor:
        return self.untouched(x[:, self.channels :]) + self.convolved(x[:, : self.channels])  # type: ignore[no-any-return]


class BornApart(Branches):
    """Two ways from the same tensor to the same output, added: nothing is split or concatenated."""

    def __init__(self, convolved: nn.Sequential, untouched: nn.Sequential):
        super().__init__()
        self.convolved = convolved
        self.untouched = untouched

    def forward(self, x: Tensor) -> Tensor:
        return self.convolved(x) + self.untouched(x)  # type: ignore[no-any-return]


class BornApartJoined(BornApart):
    """Two ways from the same tensor to the first and the last channels of the output: nothing is split."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.convolved(x), self.untouched(x)], dim=1)


class Function(nn.Module):
    """A call of a function, or of a tensor's method, that reads one tensor; it becomes that call in the graph."""

    def __init__(self, node: fx.Node, *, inplace: bool = True):
        super().__init__()
        self.target: Any = node.target
        self.is_method = node.op == "call_method"
        self.arguments = node.args[1:]
        self.options: Mapping[str, Any] = {k: v for k, v in node.kwargs.items() if inplace or k != "inplace"}

    def forward(self, x: Tensor) -> Any:
        function = getattr(x, self.target) if self.is_method else None
        if function is not None:
            return function(*self.arguments, **self.options)
        return self.target(x, *self.arguments, **self.options)

    def extra_repr(self) -> str:
        return self.target if self.is_method else str(getattr(self.target, "__name__", self.target))


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not isinstance(m, (Branches, Function, nn.Sequential))


_TRACED: WeakKeyDictionary[Branches, fx.Graph] = WeakKeyDictionary()


def traced(module: Branches) -> fx.Graph:
    """The calls inside, with one placeholder; targets are paths below the module."""
    if module not in _TRACED:
        _TRACED[module] = _Tracer().trace(module)
    return _TRACED[module]


def inner(module: Branches) -> tuple[dict[str, nn.Module], dict[str, type[nn.Module]]]:
    """The modules that are called inside, and the containers around them, by path below the module."""
    called = [str(node.target) for node in traced(module).nodes if node.op == "call_module"]
    holders = filter(None, (path.rpartition(".")[0] for path in called))
    return (
        {path: module.get_submodule(path) for path in called},
        {path: type(module.get_submodule(path)) for path in holders},
    )
