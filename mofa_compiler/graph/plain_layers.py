"""Whether a layer computes what its class says, and which of torch's layers a module of another class computes as."""

from __future__ import annotations

import inspect
import sys
from functools import lru_cache
from pathlib import Path
from types import FunctionType
from typing import Any, TypeGuard, TypeVar, cast

import torch
from torch import nn
from torch.nn.utils import parametrize

from ..nn.partial_conv import PartialConv2d

Kind = TypeVar("Kind", bound=nn.Module)

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

HARMLESS = frozenset(
    [
        *("__init__", "__module__", "__doc__", "__qualname__", "__annotations__", "__annotate_func__", "__annotate__"),
        *("__annotations_cache__", "__firstlineno__", "__static_attributes__", "__constants__"),
        *("__orig_bases__", "__parameters__", "extra_repr", "__repr__", "_get_name", "reset_parameters"),
    ]
)
"""What a class or an instance may define and still compute what the class below does"""

_COMPUTING = {"forward", "_conv_forward", "_output_padding", "__call__", "__getattr__", "__getattribute__"}
"""What a subclass may not define anew"""

_TORCH = f"{Path(torch.__file__).parent}/"
_OURS = inspect.getfile(PartialConv2d)


def is_plain(module: object, *kinds: type[Kind]) -> TypeGuard[Kind]:
    """Whether a module is of exactly one of these classes, and nothing of what it computes was replaced."""
    return type(module) in kinds and isinstance(module, nn.Module) and not altered(module)


def is_torchs(module: object, *kinds: type[Kind]) -> TypeGuard[Kind]:
    """Whether a module is of one of these classes, or of one that torch derives from them, and nothing was replaced."""
    ours = type(module).__module__.startswith("torch.nn.modules.")
    return ours and isinstance(module, kinds) and not altered(module)


def altered(module: nn.Module) -> str:
    """Why a module, or one in it, does not compute what its class says, as `has hooks`; empty for a plain one."""
    return next(filter(None, map(_altered, module.modules())), "")


def replaced(module: nn.Module) -> str:
    """The method that was replaced on a module or on its class; empty where none was.

    State-dict hooks and a compiled call do not count: they change nothing of what is computed.
    """
    kind: type = type(module)
    for name in vars(module).keys() & _defined(kind):
        if name not in HARMLESS and _is_behaviour(getattr(kind, name)):
            return name
    return next(filter(None, map(_patched, kind.__mro__[: kind.__mro__.index(nn.Module)])), "")


def has_hooks(module: nn.Module) -> bool:
    """Whether a module, or one in it, has hooks that run when it is called."""
    return any(getattr(inner, hooks) for inner in module.modules() for hooks in HOOKS)


def global_hooks() -> bool:
    """Whether there are hooks that run at the call of every module there is."""
    known = vars(torch.nn.modules.module)
    return any(known[f"_global{hooks}"] for hooks in HOOKS)


def _altered(module: nn.Module) -> str:
    if any(getattr(module, hooks) for hooks in HOOKS):
        return "has hooks"
    if parametrize.is_parametrized(module):
        return f"has a parametrized {', '.join(module.parametrizations)}"  # type: ignore[arg-type]
    name = replaced(module)
    return f"has another {name} than its class defines" if name else ""


@lru_cache(1000)
def _defined(kind: type) -> frozenset[str]:
    """What a class and those below it define. Asked of every layer time and again; there are few classes."""
    return frozenset(name for base in kind.__mro__ for name in vars(base))


def _is_behaviour(value: Any) -> bool:
    return callable(value) or isinstance(value, property)


def _patched(kind: type) -> str:
    """The method of a class of torch's or of this package whose code was written elsewhere."""
    home = str(getattr(sys.modules.get(kind.__module__), "__file__", ""))
    if not home.startswith(_TORCH) and home != _OURS:
        return ""  # somebody's own class, which is not taken for anything
    for name, value in vars(kind).items():
        if name in HARMLESS or not isinstance(value, FunctionType):
            continue
        file = value.__code__.co_filename
        wrapper = getattr(value, "__deprecated__", None)  # made by typing_extensions
        if not wrapper and not file.startswith(_TORCH) and file != home:
            return name
    return ""


def is_ours(kind: type[nn.Module]) -> bool:
    """Whether a class is one of `mofa_compiler.nn.partial_conv`, whose source a bundle carries."""
    return kind.__module__ == PartialConv2d.__module__


def torch_base(kind: type) -> type[nn.Module] | None:
    """The first class of torch's, or of this package, that a class is or is made from; None for a container."""
    for base in kind.__mro__:
        if base is not nn.Module and getattr(nn, base.__name__, None) is base:
            return cast(type[nn.Module], base)
        if is_ours(base):
            return base
    return None


def stands_for(module: nn.Module) -> type[nn.Module] | None:
    """The layer of torch's, or of this package, that could stand in a module's place; None where it does more.

    A subclass may have attributes and methods of its own, but none that the layer has.
    """
    base = torch_base(type(module))
    if base is None:
        return None
    own = {name for kind in _between(type(module), base) for name in vars(kind)} - HARMLESS
    taken = {name for name in own if name.startswith("__") or hasattr(base, name)}
    return None if taken or _hides_tensors(module, base) else base


def computes_as_layer(module: nn.Module) -> bool:
    """Whether what a module of a subclass computes is what the layer does, whatever else it does otherwise."""
    base = torch_base(type(module))
    if base is None:
        return False
    own = {name for kind in _between(type(module), base) for name in vars(kind)}
    return not own & _COMPUTING and not _hides_tensors(module, base)


def _between(kind: type, base: type) -> list[type]:
    return list(kind.__mro__[: kind.__mro__.index(base)])


def _hides_tensors(module: nn.Module, base: type) -> bool:
    """Whether a class has a property in the place of something that the layer keeps in itself, as of its stride."""
    held = {*module._parameters, *module._buffers, *vars(module)}
    held |= {name for kind in base.__mro__ for name in inspect.get_annotations(kind)}
    kinds = _between(type(module), base)
    return any(inspect.isdatadescriptor(value) and name in held for kind in kinds for name, value in vars(kind).items())
