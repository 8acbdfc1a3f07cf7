"""Proxies that know the value they stand for at the example size.

Stock torch.fx proxies know nothing, so that `if h % 8:`, `range(n)` or `len(features)` stop the tracer. Here every node
carries its value (a meta tensor, or a plain Python value) in `meta["val"]`. Where Python must decide on a size, the
decision is written into the graph as a guard, which raises at an input size where it would come out otherwise.
"""

from __future__ import annotations

import math
import operator
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from ..base.errors import calling_line
from .callers import reads_class
from .causes import ValuesError
from .numbers import SCALAR_METHODS, call_function, call_ufunc, scalar_method


def check_bool(value: object, traced: bool) -> None:
    """Raise at an input size where the traced decision would come out otherwise."""
    if bool(value) != traced:
        raise RuntimeError("this network was captured for another input size: capture it again at this one")


def check_value(value: object, traced: object) -> None:
    """Raise at an input size where a number that was fixed while tracing is another one."""
    if value != traced:
        raise RuntimeError(
            f"this network was captured where a size was {traced}, which now is {value}: capture it again at this size"
        )


def check_length(values: Any, traced: int) -> None:
    """Raise at an input size where there are more or fewer tensors to go through."""
    if len(values) != traced:
        raise RuntimeError(
            f"this network was captured with {traced} parts, which now are {len(values)}: capture it again at this size"
        )


def check_argument(value: object, traced: object, name: str) -> None:
    """Raise where an argument that is neither tensor nor number is another one than while tracing."""
    if value != traced:
        raise RuntimeError(f"this network was captured with {name}={traced!r}, not {value!r}: capture it again with it")


_CALLER = str(Path(__file__).with_name("capture.py"))

GUARDS: frozenset[Callable[..., Any]] = frozenset({check_bool, check_value, check_length, check_argument})


def is_guards(error: BaseException) -> bool:
    """Whether an error was raised by a guard, in a graph or in the source that was written of it."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and frames[-1].name in {guard.__name__ for guard in GUARDS}


_PLAIN_ATTRIBUTES = {"ndim", "dtype", "layout", "requires_grad", "is_leaf"}
_PLAIN_ATTRIBUTES |= {"is_complex", "is_cuda", "is_mps", "is_quantized", "is_sparse"}
_PLAIN_METHODS = {"dim", "ndimension", "is_floating_point", "is_contiguous", "element_size"}


UNKNOWN = object()
"""What a proxy stands for whose value is not known"""


class ShapedProxy(fx.Proxy):
    """A proxy with the value that it has at the example size in `node.meta["val"]`."""

    tracer: Any
    __array_priority__ = 1000  # as of tensors: numpy's numbers leave `number * proxy` to the proxy

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        if threading.get_ident() == self.tracer.thread and reads_class(sys._getframe(1)):
            value = self.tracer.stands_for(self)
            return type(self) if value is UNKNOWN else type(value)
        return type(self)

    @property
    def value(self) -> Any:
        return self.node.meta.get("val")

    def __getattr__(self, name: str) -> Any:
        value = self.value
        if isinstance(value, Tensor):
            # What does not depend on the input's size is no node.
            if name in _PLAIN_ATTRIBUTES:
                return getattr(value, name)
            if name in _PLAIN_METHODS:
                return getattr(value, name)
            if name == "type":
                return self._type
            if name in ("is_cpu", "is_meta"):
                return name == f"is_{self.tracer.device.type}"
            if not hasattr(value, name):
                raise AttributeError(f"a tensor has no attribute {name!r}")
        elif isinstance(value, torch.device) and name in ("type", "index"):
            return getattr(self.tracer.device, name)  # not that of the meta tensors which stand for values
        elif name in SCALAR_METHODS and _is_number(value):
            return scalar_method(self, name)
        elif name.startswith("__") or not (value is None or hasattr(value, name)):
            raise AttributeError(f"{type(value).__name__!r} object has no attribute {name!r}")
        attribute = ShapedAttribute(self, name)
        if name == "shape":
            _ = attribute.node  # read now: an operation in place may change it
        return attribute

    def _type(self, *args: Any, **kwargs: Any) -> Any:
        if args or kwargs:
            return self.tracer.create_proxy("call_method", "type", (self, *args), kwargs)
        return torch.empty(0, dtype=self.value.dtype, device=self.tracer.device).type()

    def _decide(self, convert: Callable[[Any], Any], check: Callable[..., Any]) -> Any:
        value = self.value
        if isinstance(value, Tensor) and (known := self.tracer.known(self.node)) is not None:
            return convert(known)
        if value is None or isinstance(value, Tensor):
            raise self.tracer.failure(f"{convert.__name__.lstrip('_')}() of the values of a tensor", ValuesError)
        self._check_size(convert.__name__.lstrip("_"))
        decided = convert(value)
        self._guard(check, decided if check is check_bool else value)
        return decided

    def _check_size(self, what: str) -> None:
        if self.node in self.tracer.of_unknown_size:
            message = f"{what}() of how many elements a mask selects, which depends on the values of a tensor"
            raise self.tracer.failure(message, ValuesError)

    def _guard(self, check: Callable[..., Any], traced: Any) -> None:
        made = self.tracer.create_proxy("call_function", check, (self, traced), {})
        made.node.meta["line"] = calling_line(_CALLER)

    def __bool__(self) -> bool:
        if isinstance(self.value, (tuple, list, dict)):
            return bool(self.value)
        return bool(self._decide(bool, check_bool))

    def __int__(self) -> int:
        return int(self._decide(int, check_value))

    def __index__(self) -> int:
        index = int(self._decide(operator.index, check_value))
        self.tracer.note_asked(sys._getframe(1))
        return index

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Record a function of torch's. It asks for the number in a size before it knows that it is to be recorded."""
        proxy = next(leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, ShapedProxy))
        proxy.tracer.forget_asked(sys._getframe(1))
        return super().__torch_function__(function, types, args, kwargs)

    def __float__(self) -> float:
        return float(self._decide(float, check_value))

    def __format__(self, spec: str) -> str:
        return format(self._decide(_itself, check_value), spec) if _is_number(self.value) else format(str(self), spec)

    def fixed(self) -> Any:
        """The value as it is in the example, with a guard that it stays so."""
        return self._decide(_itself, check_value)

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray[Any, Any]:
        return np.asarray(self.fixed())

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        return call_ufunc(ufunc, method, inputs, kwargs)

    def __array_function__(self, function: Callable[..., Any], types: Any, args: Any, kwargs: Any) -> Any:
        return call_function(function, args, kwargs)

    def __divmod__(self, other: Any) -> Any:
        return NotImplemented if isinstance(self.value, Tensor) else (self // other, self % other)

    def __rdivmod__(self, other: Any) -> Any:
        return NotImplemented if isinstance(self.value, Tensor) else (other // self, other % self)

    def __hash__(self) -> int:
        return hash(self._decide(_itself, check_value)) if _is_plain(self.value) else id(self)

    def __str__(self) -> str:
        return self._text(str)

    def __repr__(self) -> str:
        return self._text(repr)

    def _text(self, write: Callable[[Any], str]) -> str:
        if isinstance(self.value, torch.device):
            return write(self.tracer.device)
        return write(self._decide(_itself, check_value)) if _is_plain(self.value) else f"Proxy({self.node.name})"

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in ("node", "tracer", "root", "attr", "_node"):
            raise self.tracer.failure(f"forward assigns {name!r} of a tensor, which a graph does not keep")
        object.__setattr__(self, name, value)

    def __ceil__(self) -> Any:
        return self.tracer.create_proxy("call_function", math.ceil, (self,), {})

    def __floor__(self) -> Any:
        return self.tracer.create_proxy("call_function", math.floor, (self,), {})

    def __trunc__(self) -> Any:
        return self.tracer.create_proxy("call_function", math.trunc, (self,), {})

    def __round__(self, digits: int | None = None) -> Any:
        return self.tracer.create_proxy("call_function", round, (self,) if digits is None else (self, digits), {})

    def __len__(self) -> int:
        value = self.value
        if value is None:
            raise self.tracer.failure("len() of an unknown value")
        self._check_size("len")
        if _length_may_change(self):
            self._guard(check_length, len(value))
        return len(value)

    def __iter__(self) -> Iterator[Any]:
        if isinstance(self.value, dict):
            return iter(self.value)
        return iter([self[index] for index in range(len(self))])  # type: ignore[index]

    def __contains__(self, item: object) -> bool:
        if isinstance(self.value, (tuple, list)):
            return any(bool(each == item) for each in self)
        if not isinstance(self.value, dict):
            raise self.tracer.failure("`in` a value that is not known")
        return item in self.value.keys()  # noqa: SIM118 - for the type checker

    def __setitem__(self, index: Any, value: Any) -> None:
        # The write happens in place when the graph runs, as in the traced code, so every other view sees it.
        self.tracer.create_proxy("call_function", operator.setitem, (self, index, value), {})


class ShapedAttribute(ShapedProxy):
    """`x.name`, a node only where it is used as a value; `x.name(...)` is a method call."""

    def __init__(self, root: ShapedProxy, name: str):
        self.root, self.attr, self.tracer = root, name, root.tracer
        self._node: fx.Node | None = None

    @property
    def node(self) -> fx.Node:  # type: ignore[override]
        if self._node is None:
            self._node = self.tracer.create_proxy("call_function", getattr, (self.root, self.attr), {}).node
        return self._node

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.tracer.create_proxy("call_method", self.attr, (self.root, *args), kwargs)


def _augmented(operation: Callable[[Any, Any], Any]) -> Callable[[ShapedProxy, Any], Any]:
    def assign(self: ShapedProxy, other: Any) -> Any:
        name = operation.__name__[1:]
        plain = getattr(operator, name, None) or getattr(operator, f"{name}_")  # and_, or_
        target = operation if isinstance(self.value, Tensor) else plain
        return self.tracer.create_proxy("call_function", target, (self, other), {})

    return assign


_IN_PLACE = (
    "iadd",
    "isub",
    "imul",
    "itruediv",
    "ifloordiv",
    "imod",
    "ipow",
    "iand",
    "ior",
    "ixor",
    "ilshift",
    "irshift",
)
IN_PLACE: frozenset[Callable[..., Any]] = frozenset(getattr(operator, name) for name in (*_IN_PLACE, "setitem"))

for _name in _IN_PLACE:
    # Stock fx turns `x += y` into `x = x + y`, which another name for x would not see.
    setattr(ShapedProxy, f"__{_name}__", _augmented(getattr(operator, _name)))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_plain(value: object) -> bool:
    """Whether a value is one that code may look up or write out: numbers, text, and tuples of them."""
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return isinstance(value, (int, float, str))


def _itself(value: Any) -> Any:
    return value


_FIXED_LENGTH = {"meshgrid", "broadcast_tensors", "var_mean", "std_mean", "aminmax", "frexp"}
_FIXED_LENGTH |= {f"max_pool{n}d_with_indices" for n in (1, 2, 3)}
"""Functions that return as many tensors as they are given, or a pair"""


def _length_may_change(proxy: ShapedProxy) -> bool:
    """Whether a value's length may depend on the input's size, as that of a tensor cut into pieces does."""
    node, value = proxy.node, proxy.value
    if isinstance(value, Tensor):
        return True
    if isinstance(value, (torch.Size, dict)) or hasattr(value, "_fields") or hasattr(value, "n_fields"):
        return False
    if node.op == "call_module":
        return str(node.target) in proxy.tracer.opaque  # torch's own layers return as many values always
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    if name in _FIXED_LENGTH:
        return False
    sizes: object = node.kwargs.get("split_size", node.args[1] if len(node.args) > 1 else None)
    if name in ("split", "split_with_sizes") and isinstance(sizes, (list, tuple)):
        return False  # as many as it is told, or an error
    dim: object = node.kwargs.get("dim", node.args[2] if len(node.args) > 2 else 0)
    cut = name == "chunk" and dim == 1
    return not (cut and all(piece.ndim == 4 for piece in value))  # an image's channels are the network's own


del _name
