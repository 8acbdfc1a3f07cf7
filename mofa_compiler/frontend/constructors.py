"""Calls into torch that take no proxies, patched while a model is traced: old constructors, scripted functions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from ..base.torch_state import patched_names
from ..loading.wrappers import original_of
from .numbers import SizeArray

_TYPES = [f"{name}Tensor" for name in ("Float", "Double", "Half", "Int", "Long", "Short", "Byte", "Char", "Bool")]


_FUNCTIONS = ("narrow", "roll", "tile")
_METHODS = ("expand", "narrow", "new_empty", "new_full", "new_ones", "new_zeros", "roll", "tile")
"""What does not take a proxy for a number unless another proxy is among its arguments"""


class Recorder(Protocol):
    """What these patches need of a tracer."""

    def create_proxy(self, kind: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Record a call."""


def has_proxies(values: Any) -> bool:
    """Whether there is a proxy among values, at any depth."""
    return any(isinstance(leaf, (fx.Proxy, SizeArray)) for leaf in pytree.tree_leaves(values))


def patched_constructor() -> AbstractContextManager[None]:
    """Record `torch.Tensor(...)` in torch's newer words: of sizes it is `torch.empty`, of data `torch.tensor`.

    The class stays the one that `isinstance` is asked about: only how it makes a tensor is another. To be entered where
    torch's factories record themselves.
    """
    original: Callable[..., Any] = Tensor.__new__

    def new(cls: type, *args: Any, **kwargs: Any) -> Any:
        if cls is not Tensor or not has_proxies((args, kwargs)):
            return original(cls, *args, **kwargs)
        return _made(torch.get_default_dtype(), args, kwargs)

    typed = ((torch, name, _Typed(getattr(torch, name))) for name in _TYPES)
    return patched_names([*typed, (Tensor, "__new__", new)])


def _made(dtype: torch.dtype, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    first = args[0].value if isinstance(args[0], fx.Proxy) else args[0]
    if isinstance(first, Tensor):
        if first.dtype != dtype:
            raise TypeError(f"a tensor of {dtype} is made from one of {first.dtype}, which torch does not do either")
        return args[0]  # another name for it
    if isinstance(first, (int, torch.Size)):
        return torch.empty(*args, **{**kwargs, "dtype": dtype})
    kwargs["dtype"] = dtype
    return torch.tensor(*args, **kwargs)


class _Typed(str):
    """A stand-in for `torch.FloatTensor` and its like: a name, which torch takes for the type, and a constructor."""

    kind: Any

    def __new__(cls, kind: Any) -> _Typed:
        self = super().__new__(cls, f"{kind.__module__}.{kind.__name__}")
        self.kind = kind
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _made(self.kind.dtype, args, kwargs) if has_proxies((args, kwargs)) else self.kind(*args, **kwargs)

    def __instancecheck__(self, instance: Any) -> bool:
        if isinstance(instance, fx.Proxy) and isinstance(instance.value, Tensor):
            return bool(instance.type() == self)
        return isinstance(instance, self.kind)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.kind, name)


def patched_constants(tracer: Recorder) -> AbstractContextManager[None]:
    """Record what gives a constant of forward's own a size of the input, where torch takes numbers only.

    Of a proxy's methods all are recorded; a constant is a tensor like any other.
    """

    def recorded(kind: str, name: str, function: Any) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            constant = args and isinstance(args[0], Tensor) and not isinstance(args[0], fx.Proxy)
            if not constant or not _has_sizes((*args[1:], *kwargs.values())):
                return function(*args, **kwargs)
            return tracer.create_proxy(kind, name if kind == "call_method" else function, args, kwargs)

        return call

    functions = ((torch, name, recorded("call_function", name, getattr(torch, name))) for name in _FUNCTIONS)
    methods = ((Tensor, name, recorded("call_method", name, getattr(Tensor, name))) for name in _METHODS)
    return patched_names([*functions, *methods])


def _has_sizes(values: tuple[Any, ...]) -> bool:
    """As `has_proxies`, but fast, of arguments and of what lists among them hold."""
    for value in values:
        if isinstance(value, fx.Proxy) or (type(value) in (list, tuple) and _has_sizes(tuple(value))):
            return True
    return False


def patched_scripts(tracer: Recorder) -> AbstractContextManager[None]:
    """See through functions that `torch.jit.script` has compiled, to the Python code that they were made from.

    One that was loaded from a file or made by `torch.jit.trace` has none, and is recorded as one call.
    """
    kind: Any = torch.jit.ScriptFunction
    original = vars(kind)["__call__"]

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not has_proxies((args, kwargs)):
            return original.__get__(self, kind)(*args, **kwargs)
        python = original_of(self)
        if python is not None:
            return python(*args, **kwargs)
        return tracer.create_proxy("call_function", scripted_call(self), args, kwargs)

    return patched_names([(kind, "__call__", call)])


@functools.cache
def scripted_call(script: Any) -> Callable[..., Any]:
    """A plain function for a scripted one, as a graph node needs one."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return script(*args, **kwargs)

    call.__name__ = call.__qualname__ = f"call_{script.name}"
    call.script = script  # type: ignore[attr-defined]
    return call
