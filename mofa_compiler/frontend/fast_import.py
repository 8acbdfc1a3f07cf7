"""Tracing without torch's compiler stack, which evaluating on meta tensors imports but does not need.

Kernels for meta tensors are Python. The elementwise ones are wrapped so that torch.compile leaves them alone, and the
first call of one imports torch._dynamo, with torch._inductor and torch.onnx behind it: that takes as long as importing
torch. Others import the reasoning about symbolic sizes, and sympy, to compare two plain numbers. While a network is
traced, what those kernels import, and nobody else, is a stand-in that does the same for plain numbers and leaves the
rest to the real module.

If a real one is imported all the same, as by a forward that asks for torch._dynamo, the patches of tracing are lifted
meanwhile, for torch._dynamo keeps what it finds in torch. From then on the kernels import it as ever. Nothing stays
behind in torch, and where its internals look different, the real modules are imported.
"""

from __future__ import annotations

import builtins
import importlib
import math
import operator
import sys
import threading
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import Any

import numpy as np
import torch
from torch import nn

_DYNAMO = "torch._dynamo"
_SIZES = "torch.fx.experimental.symbolic_shapes"
_SYMPY = "sympy"
_LEFT_OUT = (_DYNAMO, _SIZES, _SYMPY)
_CACHE = "__dynamo_disable"
"""Where torch._compile keeps a function as torch._dynamo leaves it alone"""

_KERNELS = ("torch._meta_registrations", "torch._prims", "torch._refs", "torch._decomp")
_CLASSES = (torch.autograd.Function, nn.Module, torch.Tensor, torch.jit.ScriptFunction)
_PATCHED = (torch, torch.jit, *_CLASSES, math, builtins, np)
"""Where tracing patches names that torch's modules may read while they are imported; to a class it may add some"""

_ABSENT = object()


@contextmanager
def lean() -> Iterator[None]:
    """Do without torch._dynamo, symbolic sizes and sympy, as far as possible, until the end of the context.

    To be entered before anything is patched; inside another one it does nothing. With other threads about, which may
    import them at any time, or with torch._dynamo there already, all is as it would be without.
    """
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        yield
        return
    if _DYNAMO in sys.modules or threading.active_count() > 1:
        importlib.import_module(_DYNAMO)  # also where another thread is about to: not while tracing
        yield
        return
    uncompiled: list[Any] = []
    original, finder = builtins.__import__, _Finder(uncompiled)
    builtins.__import__ = _importer(original, uncompiled)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        builtins.__import__ = original
        _forget(uncompiled)


def _importer(original: Callable[..., Any], uncompiled: list[Any]) -> Callable[..., Any]:
    """What import statements call: `original`, but in torch's own functions a stand-in for what is not there yet."""
    package = types.SimpleNamespace(_dynamo=_Dynamo(uncompiled))  # `import torch._dynamo` binds torch
    sizes, sympy = _Sizes(), _Sympy()

    def import_(
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:
        if name in _LEFT_OUT and name not in sys.modules and globals and locals is not globals:
            caller = str(globals.get("__name__"))
            if name == _DYNAMO and caller == "torch._compile":
                return package
            if name == _SIZES and fromlist and (caller == "torch" or caller.startswith(_KERNELS)):
                return sizes
            if name == _SYMPY and caller == "torch._prims_common":
                return sympy
        return original(name, globals, locals, fromlist, level)

    return import_


class _Dynamo:
    """As much of torch._dynamo as torch._compile asks for."""

    def __init__(self, uncompiled: list[Any]):
        self._uncompiled = uncompiled

    def disable(self, function: Any, *_: object, **__: object) -> Any:
        """The function itself, as nobody compiles here. Noted, for torch._compile keeps what it is given."""
        self._uncompiled.append(function)
        return function

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(_DYNAMO), name)


def _forget(uncompiled: list[Any]) -> None:
    """Let torch._compile ask again, at their next call, what these functions are to be."""
    for function in uncompiled:
        if getattr(function, _CACHE, None) is function:
            delattr(function, _CACHE)
    uncompiled.clear()


class _Sizes:
    """Symbolic sizes, for sizes that are plain numbers."""

    def __getattr__(self, name: str) -> Any:
        if not name.islower():
            return getattr(importlib.import_module(_SIZES), name)  # a class

        def function(*args: Any, **kwargs: Any) -> Any:
            if name in _PLAIN and all(map(_is_plain, args)):
                return _PLAIN[name](*args, **kwargs)
            return getattr(importlib.import_module(_SIZES), name)(*args, **kwargs)

        setattr(self, name, function)
        return function


class _Sympy:
    """As much of sympy as a check for its expressions needs."""

    class Basic:
        """What no value is as long as nobody has imported sympy."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(_SYMPY), name)


def _is_plain(value: object) -> bool:
    return all(map(_is_plain, value)) if isinstance(value, (list, tuple)) else isinstance(value, int)


def _itself(value: Any, *_: object, **__: object) -> Any:
    return value


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other)


_PLAIN: dict[str, Callable[..., Any]] = {
    "expect_true": _itself,
    "guard_or_false": _itself,
    "guard_or_true": _itself,
    "guard_size_oblivious": _itself,
    "is_nested_int": lambda _: False,
    "statically_known_true": _itself,
    "sym_and": lambda *values: reduce(operator.and_, values),
    "sym_eq": _equal,
    "sym_or": lambda *values: reduce(operator.or_, values),
}
"""What functions of torch.fx.experimental.symbolic_shapes return for plain numbers"""


class _Finder(MetaPathFinder):
    """Finds the real modules, and has them imported while nothing is patched."""

    def __init__(self, uncompiled: list[Any]):
        self.uncompiled = uncompiled
        self.unpatched = [(home, dict(vars(home))) for home in _PATCHED]

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _LEFT_OUT:
            return None
        found = (finder.find_spec(fullname, path, target) for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, found), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self)
        return spec

    @contextmanager
    def lifted(self) -> Iterator[None]:
        """Everything in torch as it was before tracing, and the patches back afterwards."""
        patches = [
            (home, name, was.get(name, _ABSENT), value)
            for home, was in self.unpatched
            for name, value in vars(home).items()
            if was.get(name, _ABSENT) is not value and (name in was or isinstance(home, type))
        ]
        for home, name, was, _ in patches:
            setattr(home, name, was) if was is not _ABSENT else delattr(home, name)
        _forget(self.uncompiled)
        try:
            yield
        finally:
            for home, name, _, patch in patches:
                setattr(home, name, patch)


class _Loader(Loader):
    """A module's own loader, run while nothing is patched."""

    def __init__(self, loader: Loader, finder: _Finder):
        self.loader = loader
        self.finder = finder

    def create_module(self, spec: ModuleSpec) -> types.ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: types.ModuleType) -> None:
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        with self.finder.lifted():
            self.loader.exec_module(module)
