"""What is patched while a model is traced, beyond what torch.fx patches itself.

`torch.autograd.Function.apply`, torch factories, einops' table of tensor types, and what `questions` replaces.
All of it is put back, also after an error.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import nn

from ..base.torch_state import patched_names
from .checkpoints import is_checkpoint, seen_through
from .constructors import has_proxies, patched_constants, patched_constructor, patched_scripts
from .numbers import patched_numbers
from .proxies import ShapedAttribute, ShapedProxy
from .questions import Asked, answered

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


class Recorder(Asked, Protocol):
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
        answered(tracer, model),
        _patched_einops(),
        patched_numbers(),
        patched_constructor(),
        patched_constants(tracer),
        patched_scripts(tracer),
    ):
        yield


def _patched_autograd(tracer: Recorder) -> AbstractContextManager[None]:
    """Record `SomeFunction.apply(...)` on proxies as one call, so that its own backward survives."""
    original = torch.autograd.Function.__dict__["apply"]

    def apply(cls: type[torch.autograd.Function], *args: Any, **kwargs: Any) -> Any:
        if has_proxies((args, kwargs)):
            if not kwargs and is_checkpoint(cls, args):
                return seen_through(cls, args)
            return tracer.create_proxy("call_function", autograd_call(cls), args, kwargs)
        return original.__get__(None, cls)(*args, **kwargs)

    return patched_names([(torch.autograd.Function, "apply", classmethod(apply))])


def _patched_factories(tracer: Recorder) -> AbstractContextManager[None]:
    """Record `torch.zeros(n)` and its like where a size or device is a proxy, and always where it is random."""

    def recorded(name: str, make: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(make)
        def factory(*args: Any, **kwargs: Any) -> Any:
            if not tracer.aside and (name in _RANDOM or has_proxies((args, kwargs))):
                return tracer.create_proxy("call_function", make, args, kwargs)
            return make(*args, **kwargs)

        return factory

    return patched_names([(torch, name, recorded(name, getattr(torch, name))) for name in (*_FACTORIES, *_RANDOM)])


def _patched_einops() -> AbstractContextManager[None]:
    """Let einops take proxies for tensors: what it then does are plain reshapes and permutations, which are recorded.

    Its cache of shapes is passed by, since it would hold on to proxies.
    """
    einops: Any = sys.modules.get("einops.einops")
    backends: Any = sys.modules.get("einops._backends")
    if einops is None or backends is None:
        return nullcontext()
    backend = backends.get_backend(torch.empty(0))
    return patched_names(
        [
            *((backends._type2backend, kind, backend) for kind in (ShapedProxy, ShapedAttribute)),
            (einops, "_reconstruct_from_shape", einops._reconstruct_from_shape_uncached),
        ]
    )


@functools.cache
def autograd_call(function: type[torch.autograd.Function]) -> Callable[..., Any]:
    """A plain function for `function.apply`, as a graph node needs one; `.autograd_function` leads back."""

    def call(*args: Any) -> Any:
        return function.apply(*args)  # type: ignore[no-untyped-call]

    call.__name__ = call.__qualname__ = f"apply_{function.__name__}"
    call.__module__ = function.__module__
    call.autograd_function = function  # type: ignore[attr-defined]
    return call
