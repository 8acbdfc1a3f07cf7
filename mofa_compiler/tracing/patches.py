"""What is patched while a model is traced, beyond what torch.fx patches itself.

`torch.autograd.Function.apply`, torch factories, `torch.is_tensor`, `torch.jit.isinstance`, einops' table of tensor
types, and `isinstance`, `int` and `float` in the Python modules that define the model. All of it is put back, also
after an error.
"""

from __future__ import annotations

import builtins
import functools
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import nn

from .checkpoints import is_checkpoint, seen_through
from .constructors import has_proxies, patched_constants, patched_constructor, patched_scripts
from .numbers import patched_numbers
from .proxies import ShapedAttribute, ShapedProxy

_FACTORIES = (
    "as_tensor",
    "asarray",
    "zeros",
    "ones",
    "empty",
    "full",
    "arange",
    "linspace",
    "logspace",
    "eye",
    "tensor",
    "meshgrid",
)
_RANDOM = ("rand", "randn", "randint", "randperm", "normal")


class Recorder(Protocol):
    """What a patch needs of a tracer."""

    @property
    def aside(self) -> bool:
        """Whether a call is none of the trace's."""

    def create_proxy(self, kind: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Record a call."""


@contextmanager
def patched(tracer: Recorder, model: nn.Module) -> Iterator[None]:
    """All patches, for as long as a model is traced."""
    with (
        _patched_autograd(tracer),
        _patched_factories(tracer),
        _patched_checks(model),
        _patched_einops(),
        patched_numbers(),
        patched_constructor(),
        patched_constants(tracer),
        patched_scripts(tracer),
    ):
        yield


@contextmanager
def _patched_autograd(tracer: Recorder) -> Iterator[None]:
    """Record `SomeFunction.apply(...)` on proxies as one call, so that its own backward survives."""
    original = torch.autograd.Function.__dict__["apply"]

    def apply(cls: type[torch.autograd.Function], *args: Any, **kwargs: Any) -> Any:
        if has_proxies((args, kwargs)):
            if not kwargs and is_checkpoint(cls, args):
                return seen_through(cls, args)
            return tracer.create_proxy("call_function", autograd_call(cls), args, kwargs)
        return original.__get__(None, cls)(*args, **kwargs)

    setattr(torch.autograd.Function, "apply", classmethod(apply))  # noqa: B010
    try:
        yield
    finally:
        setattr(torch.autograd.Function, "apply", original)  # noqa: B010


@contextmanager
def _patched_factories(tracer: Recorder) -> Iterator[None]:
    """Record `torch.zeros(n)` and its like where a size or device is a proxy, and always where it is random."""

    def recorded(name: str, make: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(make)
        def factory(*args: Any, **kwargs: Any) -> Any:
            if not tracer.aside and (name in _RANDOM or has_proxies((args, kwargs))):
                return tracer.create_proxy("call_function", make, args, kwargs)
            return make(*args, **kwargs)

        return factory

    originals = {name: getattr(torch, name) for name in (*_FACTORIES, *_RANDOM)}
    for name, make in originals.items():
        setattr(torch, name, recorded(name, make))
    try:
        yield
    finally:
        for name, make in originals.items():
            setattr(torch, name, make)


@contextmanager
def _patched_checks(model: nn.Module) -> Iterator[None]:
    """Let `isinstance` and its like, in the modules that define the model, see a proxy as what it stands for.

    Without this a branch on `isinstance(x, torch.Tensor)` would silently be traced the wrong way.
    """

    def stands_for(found: Callable[..., bool]) -> Callable[..., bool]:
        def check(value: Any, *classes: Any) -> bool:
            known = isinstance(value, ShapedProxy) and value.value is not None
            return found(value, *classes) or (known and found(value.value, *classes))

        return check

    # `int` and `float` of a size stay in the graph; everything else about these types is as it was.
    soft = {kind.__name__: _soft(kind) for kind in (int, float)}
    names = {kind.__module__ for module in model.modules() for kind in type(module).__mro__}
    homes = [sys.modules[name] for name in sorted(names) if name in sys.modules and not name.startswith("torch.")]
    patched = [(torch, "is_tensor"), (torch.jit, "isinstance"), *((home, "isinstance") for home in homes)]
    undo = []
    try:
        for home, name in patched:
            if home is builtins:
                continue
            undo.append((home, name, home.__dict__.get(name)))
            setattr(home, name, stands_for(home.__dict__.get(name, isinstance)))
        for home in homes:
            for name, value in list(vars(home).items()):
                if _is_bound_apply(value):  # `ste = StraightThrough.apply`, taken before `apply` was patched
                    undo.append((home, name, value))
                    setattr(home, name, value.__self__.apply)
            for name in soft.keys() - home.__dict__.keys() if home is not builtins else ():
                undo.append((home, name, None))
                setattr(home, name, soft[name])
        yield
    finally:
        for home, name, was in reversed(undo):
            setattr(home, name, was) if was is not None else delattr(home, name)


def _is_bound_apply(value: Any) -> bool:
    if not isinstance(value, (types.MethodType, types.BuiltinMethodType)) or value.__name__ != "apply":
        return False
    return isinstance(value.__self__, type) and issubclass(value.__self__, torch.autograd.Function)


@contextmanager
def _patched_einops() -> Iterator[None]:
    """Let einops take proxies for tensors: what it then does are plain reshapes and permutations, which are recorded.

    Its cache of shapes is passed by, since it would hold on to proxies.
    """
    einops: Any = sys.modules.get("einops.einops")
    backends: Any = sys.modules.get("einops._backends")
    if einops is None or backends is None:
        yield
        return
    types, cached = backends._type2backend, einops._reconstruct_from_shape
    backend = backends.get_backend(torch.empty(0))
    try:
        types |= {ShapedProxy: backend, ShapedAttribute: backend}
        einops._reconstruct_from_shape = einops._reconstruct_from_shape_uncached
        yield
    finally:
        einops._reconstruct_from_shape = cached
        del types[ShapedProxy], types[ShapedAttribute]


def _soft(base: type) -> type:
    """A stand-in for `int` or `float` whose call on a proxy is a node instead of a number."""

    class Soft(type):
        def __call__(cls, *args: Any, **kwargs: Any) -> Any:
            if args and isinstance(args[0], ShapedProxy):
                return args[0].tracer.create_proxy("call_function", base, args, kwargs)
            return base(*args, **kwargs)

        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, base) or (
                isinstance(instance, ShapedProxy) and isinstance(instance.value, base)
            )

        def __subclasscheck__(cls, subclass: type) -> bool:
            return issubclass(subclass, base)

    return Soft(base.__name__, (base,), {})


@functools.cache
def autograd_call(function: type[torch.autograd.Function]) -> Callable[..., Any]:
    """A plain function for `function.apply`, as a graph node needs one; `.autograd_function` leads back."""

    def call(*args: Any) -> Any:
        return function.apply(*args)  # type: ignore[no-untyped-call]

    call.__name__ = call.__qualname__ = f"apply_{function.__name__}"
    call.__module__ = function.__module__
    call.autograd_function = function  # type: ignore[attr-defined]
    return call
