"""Python source for the values and functions that appear in a graph."""

from __future__ import annotations

import functools
import inspect
import math
import operator
import sys
import types
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx

from ..base import spelling
from ..base.errors import BundleError

# Binding strength of Python's operators, as far as they appear: a higher one binds tighter.
ATOM, POWER, UNARY, COMPARISON = 20, 14, 13, 5

INFIX: dict[Callable[..., Any], tuple[str, int]] = {
    operator.add: ("+", 11),
    operator.sub: ("-", 11),
    operator.mul: ("*", 12),
    operator.truediv: ("/", 12),
    operator.floordiv: ("//", 12),
    operator.mod: ("%", 12),
    operator.matmul: ("@", 12),
    operator.pow: ("**", POWER),
    operator.and_: ("&", 8),
    operator.or_: ("|", 6),
    operator.xor: ("^", 7),
    operator.lshift: ("<<", 9),
    operator.rshift: (">>", 9),
    operator.eq: ("==", COMPARISON),
    operator.ne: ("!=", COMPARISON),
    operator.lt: ("<", COMPARISON),
    operator.le: ("<=", COMPARISON),
    operator.gt: (">", COMPARISON),
    operator.ge: (">=", COMPARISON),
}
PREFIX: dict[Callable[..., Any], str] = {operator.neg: "-", operator.pos: "+", operator.invert: "~"}
IN_PLACE: dict[Callable[..., Any], tuple[Callable[..., Any], str]] = {
    operator.iadd: (operator.add, "add_"),
    operator.isub: (operator.sub, "sub_"),
    operator.imul: (operator.mul, "mul_"),
    operator.itruediv: (operator.truediv, "div_"),
    operator.ifloordiv: (operator.floordiv, "floor_divide_"),
    operator.imod: (operator.mod, "remainder_"),
    operator.ipow: (operator.pow, "pow_"),
    operator.iand: (operator.and_, "bitwise_and_"),
    operator.ior: (operator.or_, "bitwise_or_"),
    operator.ixor: (operator.xor, "bitwise_xor_"),
}
"""Augmented assignments: what they are on numbers, and the method that they are on tensors"""

_BUILTIN_TYPES = (bool, int, float, complex, str, list, tuple, dict)


def literal(value: Any, name: Callable[[fx.Node], str] | None = None) -> str:
    """Source whose value equals `value`; `name` says what stands for a node in it.

    Raises:
        BundleError: it is of a type that has no source.
    """
    if isinstance(value, fx.Node) and name is not None:
        return name(value)
    again = functools.partial(literal, name=name)
    if value is ...:
        return "..."
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if isinstance(value, str):
        return spelling.string(value)
    if value is None or isinstance(value, (bool, int, float, complex, bytes)):
        return repr(value)
    if isinstance(value, (torch.dtype, torch.layout, torch.memory_format)):
        return str(value)
    if isinstance(value, torch.device):
        return f'torch.device("{value}")'
    if isinstance(value, torch.Size):
        return f"torch.Size([{', '.join(map(again, value))}])"
    if isinstance(value, slice):
        parts = [value.start, value.stop, value.step]
        return f"slice({', '.join(map(again, parts))})"
    if isinstance(value, range):
        return repr(value)
    if isinstance(value, tuple):
        return f"({', '.join(map(again, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, list):
        return f"[{', '.join(map(again, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{again(key)}: {again(item)}" for key, item in value.items()) + "}"
    if isinstance(value, type) and value in _BUILTIN_TYPES:
        return value.__name__
    raise BundleError(f"there is no source for a {type(value).__name__} in the graph: {value!r}", code="no-source")


def index(value: Any, name: Callable[[fx.Node], str]) -> str:
    """What stands between the brackets of `x[...]`."""
    if isinstance(value, tuple) and value and not hasattr(value, "_fields"):
        return ", ".join(_subscript(item, name) for item in value) + ("," if len(value) == 1 else "")
    return _subscript(value, name)


def _subscript(value: Any, name: Callable[[fx.Node], str]) -> str:
    if not isinstance(value, slice):
        return literal(value, name)
    ends = ["" if end is None else literal(end, name) for end in (value.start, value.stop)]
    step = "" if value.step is None else f":{literal(value.step, name)}"
    return f"{ends[0]}:{ends[1]}{step}"


@functools.cache
def function_source(function: Callable[..., Any]) -> str | None:
    """How `model.py` names a function of torch or Python (`torch.cat`, `F.pad`, `math.floor`); None for others."""
    if isinstance(function, (torch._ops.OpOverload, torch._ops.OpOverloadPacket)):
        return f"torch.ops.{function}"
    name = getattr(function, "__name__", "")
    for prefix, space in (("torch", torch), ("F", F), ("torch.Tensor", torch.Tensor)):
        if getattr(space, name, None) is function:
            return f"{prefix}.{name}"
    home = getattr(function, "__module__", None) or ""
    if home == "builtins" and name in vars(sys.modules["builtins"]):
        return name
    if home == "math":
        return f"math.{name}"
    if home.partition(".")[0] == "torch" and getattr(sys.modules.get(home), name, None) is function:
        return f"{home}.{name}"
    for home in ("torch.linalg", "torch.special", "torch.fft", "torch._C._nn"):
        if getattr(operator.attrgetter(home.partition(".")[2])(torch), name, None) is function:
            return f"{home}.{name}"
    return None


@functools.cache
def defaults(function: Callable[..., Any]) -> dict[str, Any]:
    """A function's keyword arguments that may be left out, with what they are then."""
    if not isinstance(function, types.FunctionType):
        return {}
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def spelled_out(function: Callable[..., Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The keyword arguments that say more than the function's defaults."""
    known = defaults(function)
    return {
        key: value
        for key, value in kwargs.items()
        if not (key in known and type(known[key]) is type(value) and known[key] == value)
    }
