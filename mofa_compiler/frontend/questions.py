"""Questions that code asks of a value, answered for a proxy as they are answered in eager mode.

`isinstance`, `type`, `callable`, `hasattr`, `x.__class__`, class patterns of `match`, `torch.is_tensor` and its like: a
branch on one of them is decided while the network is traced, so a proxy has to answer as the value that it stands for.
`torch.is_grad_enabled()` answers as at the call of `capture`. Only the tracing thread gets these answers; code of
torch.fx and of this package, which has to tell proxies from tensors, does not.
"""

from __future__ import annotations

import builtins
import functools
import sys
import threading
import types
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..base.torch_state import patched_names
from .callers import is_machinery, reads_class
from .proxies import UNKNOWN, ShapedAttribute, ShapedProxy

_PROXIES = (ShapedProxy, ShapedAttribute)
_APART = {*sys.stdlib_module_names, "mofa_compiler", "numpy", "torch"}
"""Packages in whose modules no name is replaced"""


class Asked(Protocol):
    """What the answers need of a tracer."""

    thread: int
    gradients: bool
    asked_gradients: bool

    def stands_for(self, proxy: ShapedProxy) -> Any:
        """What eager mode has in a proxy's place."""

    @property
    def device(self) -> torch.device:
        """Where eager mode computes."""


def answered(tracer: Asked, model: nn.Module) -> AbstractContextManager[None]:
    """Answer every question as eager does, on the tracing thread, until the end of the context."""
    near, reached = _namespaces(model)
    answers = _Answers(tracer)

    def patches() -> Iterator[tuple[Any, str, Any]]:
        for name in ("isinstance", "callable", "hasattr"):
            yield builtins, name, getattr(answers, name)
        yield torch, "is_tensor", answers.is_tensor
        yield torch, "is_grad_enabled", answers.is_grad_enabled
        yield torch.jit, "isinstance", answers.scripted_isinstance
        for number, namespace in enumerate((*near, *reached)):
            soft = answers.soft if number < len(near) else answers.soft_type
            for kind in soft.values():
                if kind.__name__ not in namespace:
                    yield namespace, kind.__name__, kind
            for name, value in list(namespace.items()):
                if _is_bound_apply(value):  # `ste = StraightThrough.apply`, taken before `apply` was patched
                    yield namespace, name, value.__self__.apply

    return patched_names(patches())


class _Answers:
    """The functions that stand in for Python's and torch's own while a network is traced."""

    def __init__(self, tracer: Asked):
        self.tracer = tracer
        original_is_tensor, original_scripted = torch.is_tensor, torch.jit.isinstance
        original_enabled = torch.is_grad_enabled

        @functools.wraps(isinstance)
        def isinstance_(value: Any, classes: Any, /) -> bool:
            if type(value) not in _PROXIES or self._about_proxies(value):
                return _isinstance(value, classes)
            return self._is_instance(value, classes)

        @functools.wraps(callable)
        def callable_(value: Any, /) -> bool:
            if type(value) not in _PROXIES or self._about_proxies(value):
                return _callable(value)
            return _callable(tracer.stands_for(value))

        @functools.wraps(hasattr)
        def hasattr_(value: Any, name: str, /) -> bool:
            if type(value) not in _PROXIES or self._about_proxies(value):
                return _hasattr(value, name)
            return _hasattr(tracer.stands_for(value), name)

        @functools.wraps(original_is_tensor)
        def is_tensor(value: Any, /) -> bool:
            return original_is_tensor(self._eager(value))

        @functools.wraps(original_scripted)
        def scripted_isinstance(value: Any, classes: Any) -> Any:
            return original_scripted(self._eager(value), classes)  # type: ignore[no-untyped-call]

        @functools.wraps(original_enabled)
        def is_grad_enabled() -> bool:
            if not self._is_here() or is_machinery(sys._getframe(1)):
                return original_enabled()
            tracer.asked_gradients = True
            return tracer.gradients and original_enabled()

        self.isinstance, self.callable, self.hasattr = isinstance_, callable_, hasattr_
        self.is_tensor, self.scripted_isinstance = is_tensor, scripted_isinstance
        self.is_grad_enabled = is_grad_enabled
        self.soft_type: dict[type, type] = {}
        self.soft_type[type] = _soft(type, functools.partial(self._type, self.soft_type))
        self.soft: dict[type, type] = {kind: _soft(kind, functools.partial(_number, kind)) for kind in (int, float)}
        self.soft[type] = _soft(type, functools.partial(self._type, self.soft))

    def _is_here(self) -> bool:
        return threading.get_ident() == self.tracer.thread

    def _about_proxies(self, value: ShapedProxy) -> bool:
        """Whether who calls our caller asks about the proxy itself, or eager's answer is not known."""
        aside = not self._is_here() or is_machinery(sys._getframe(2))
        return aside or self.tracer.stands_for(value) is UNKNOWN

    def _is_instance(self, proxy: ShapedProxy, classes: Any) -> bool:
        value = self.tracer.stands_for(proxy)
        if _isinstance(value, classes):
            return True
        # torch.FloatTensor and its like ask for dtype and device.
        return _isinstance(value, Tensor) and _isinstance(
            torch.empty(0, dtype=value.dtype, device=self.tracer.device), classes
        )

    def _type(self, soft: dict[type, type], *args: Any, **kwargs: Any) -> Any:
        if len(args) != 1 or kwargs:
            return type(*args, **kwargs)
        kind = type(args[0])
        if kind in _PROXIES and self._is_here():
            value = self.tracer.stands_for(args[0])
            kind = kind if value is UNKNOWN else type(value)
        return soft.get(kind, kind)  # `type(n) is int` where `int` is replaced, too

    def _eager(self, tree: Any) -> Any:
        """A value, or lists and dicts of them, with what proxies stand for."""
        if not self._is_here():
            return tree
        return pytree.tree_map_only(_PROXIES, self._stand_in, tree)

    def _stand_in(self, proxy: ShapedProxy) -> Any:
        value = self.tracer.stands_for(proxy)
        return proxy if value is UNKNOWN else value


_isinstance, _callable, _hasattr = isinstance, callable, hasattr


def _namespaces(model: nn.Module) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The namespaces of the code that forward may run: those near to the model, and those further off.

    Near are the modules that define its classes, all of the same packages, and what these refer to by name.
    """
    kinds = {kind for module in model.modules() for kind in type(module).__mro__}
    functions = [value for kind in kinds for value in _functions(vars(kind).values())]
    functions += [value for module in model.modules() for value in _functions(vars(module).values())]
    homes = [vars(sys.modules[kind.__module__]) for kind in kinds if kind.__module__ in sys.modules]
    homes = _own([*homes, *(function.__globals__ for function in functions)])
    packages = {_package(home) for home in homes} - {"__main__"}
    siblings = [vars(module) for name, module in list(sys.modules.items()) if name.split(".")[0] in packages]
    near = _own([*homes, *siblings, *(other for home in homes for other in _referred(home))])
    known = {id(namespace) for namespace in near}
    reached, pending = [], list(near)
    while pending:
        for other in _own(_referred(pending.pop())):
            if id(other) not in known:
                known.add(id(other))
                reached.append(other)
                pending.append(other)
    return near, reached


def _own(namespaces: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each once, without Python's, torch's and ours."""
    return list({id(space): space for space in namespaces if _package(space) not in _APART}.values())


def _package(namespace: dict[str, Any]) -> str:
    return str(namespace.get("__name__")).split(".")[0]


def _functions(values: Iterable[Any]) -> Iterator[types.FunctionType]:
    for value in values:
        plain: Any = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        if isinstance(plain, types.FunctionType):
            yield plain


def _referred(namespace: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The namespaces of the modules, functions and classes that a namespace names."""
    for value in list(namespace.values()):
        if isinstance(value, types.FunctionType):
            yield value.__globals__
            continue
        kind = value if isinstance(value, type) else type(value)
        module = value if isinstance(value, types.ModuleType) else sys.modules.get(str(kind.__module__))
        if isinstance(module, types.ModuleType):
            yield vars(module)


def _is_bound_apply(value: Any) -> bool:
    if not isinstance(value, (types.MethodType, types.BuiltinMethodType)) or value.__name__ != "apply":
        return False
    return isinstance(value.__self__, type) and issubclass(value.__self__, torch.autograd.Function)


def _number(base: type, *args: Any, **kwargs: Any) -> Any:
    """`int(n)` of a size is a node, not a number."""
    if args and type(args[0]) in _PROXIES:
        return args[0].tracer.create_proxy("call_function", base, args, kwargs)
    return base(*args, **kwargs)


def _soft(base: type, call: Callable[..., Any]) -> type:
    """A stand-in for a built-in type, the same in every comparison, whose call is another one."""

    class Soft(type):
        def __call__(cls, *args: Any, **kwargs: Any) -> Any:
            return call(*args, **kwargs)

        def __instancecheck__(cls, instance: Any) -> bool:
            if type(instance) in _PROXIES and reads_class(sys._getframe(1)):  # by a class pattern
                instance = instance.tracer.stands_for(instance)
            return isinstance(instance, base)

        def __subclasscheck__(cls, subclass: type) -> bool:
            return issubclass(subclass, base)

        def __eq__(cls, other: object) -> bool:
            return other is cls or other is base

        def __hash__(cls) -> int:
            return hash(base)

    return Soft(base.__name__, (base,), {})
