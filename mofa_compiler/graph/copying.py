"""Copies of modules that hold functions: what such a function refers to is the copy, too.

`copy.deepcopy` takes functions for constants. A hook, or a forward that was put on a layer, would so go on to use the
weights of the module that was copied.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import CellType, FunctionType, MethodType
from typing import Any, cast

from torch import Tensor, nn

from .plain_layers import HOOKS


def follow(new: nn.Module, memo: Mapping[int, Any]) -> None:
    """Let the functions that a copy holds, as attributes or hooks, refer to the copy; `memo` is deepcopy's."""
    rebound: dict[int, Any] = {}
    for module in new.modules():
        held = vars(module)
        for name, value in held.items():
            if isinstance(value, (FunctionType, MethodType, functools.partial)):
                held[name] = _rebound(value, memo, rebound)
        for name in HOOKS:
            for key, hook in held[name].items():
                held[name][key] = _rebound(hook, memo, rebound)


def _rebound(value: Any, memo: Mapping[int, Any], rebound: dict[int, Any]) -> Any:
    """The same for the copy; the value itself where it refers to nothing that was copied."""
    if isinstance(value, (nn.Module, Tensor)):
        return memo.get(id(value), value)
    if isinstance(value, (list, tuple, dict)) and type(value) in (list, tuple, dict):
        return _container(value, memo, rebound)
    if isinstance(value, functools.partial):
        parts = (value.func, list(value.args), value.keywords)
        func, args, keywords = (_rebound(part, memo, rebound) for part in parts)
        return value if (func, args, keywords) == parts else functools.partial(func, *args, **keywords)
    if isinstance(value, MethodType):
        owner, function = _rebound(value.__self__, memo, rebound), _rebound(value.__func__, memo, rebound)
        same = owner is value.__self__ and function is value.__func__
        return value if same else MethodType(cast(Callable[..., Any], function), owner)
    if isinstance(value, FunctionType):
        if id(value) not in rebound:
            rebound[id(value)] = value  # for one that refers to itself
            rebound[id(value)] = _function(value, memo, rebound)
        return rebound[id(value)]
    return value


def _container(value: Any, memo: Mapping[int, Any], rebound: dict[int, Any]) -> Any:
    items = list(value.values()) if isinstance(value, dict) else list(value)
    found = [_rebound(item, memo, rebound) for item in items]
    if all(new is old for new, old in zip(found, items, strict=True)):
        return value
    return dict(zip(value, found, strict=True)) if isinstance(value, dict) else type(value)(found)


def _function(function: FunctionType, memo: Mapping[int, Any], rebound: dict[int, Any]) -> FunctionType:
    cells = function.__closure__ or ()
    new_cells = tuple(_cell(cell, memo, rebound) for cell in cells)
    defaults = _rebound(function.__defaults__, memo, rebound)
    keywords = _rebound(function.__kwdefaults__, memo, rebound)
    same = all(new is old for new, old in zip(new_cells, cells, strict=True))
    if same and defaults is function.__defaults__ and keywords is function.__kwdefaults__:
        return function
    new = FunctionType(function.__code__, function.__globals__, function.__name__, defaults, new_cells or None)
    new.__kwdefaults__ = keywords
    return cast(FunctionType, functools.update_wrapper(new, function))


def _cell(cell: CellType, memo: Mapping[int, Any], rebound: dict[int, Any]) -> CellType:
    try:
        value = cell.cell_contents
    except ValueError:  # nothing in it yet
        return cell
    new = _rebound(value, memo, rebound)
    return cell if new is value else CellType(new)
