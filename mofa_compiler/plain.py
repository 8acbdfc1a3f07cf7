"""Which of torch's layers a module of another class computes as."""

from __future__ import annotations

import inspect
from typing import cast

from torch import nn

from .layers import PartialConv2d

_HARMLESS = {
    *("__init__", "__module__", "__doc__", "__qualname__", "__annotations__", "__annotate_func__", "__annotate__"),
    *("__annotations_cache__", "__firstlineno__", "__static_attributes__", "__constants__", "__repr__"),
    *("__orig_bases__", "__parameters__", "extra_repr", "reset_parameters"),
}
"""What a subclass may define anew and still compute what its base does"""

_COMPUTING = {"forward", "_conv_forward", "_output_padding", "__call__", "__getattr__", "__getattribute__"}


def is_ours(kind: type[nn.Module]) -> bool:
    """Whether a class is one of `mofa_compiler.layers`, whose source a bundle carries."""
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
    own = {name for kind in _between(type(module), base) for name in vars(kind)} - _HARMLESS
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
