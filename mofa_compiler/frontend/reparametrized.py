"""Weights that a model computes from others at every call, folded into plain ones.

Weight and spectral normalization, pruning masks and other parametrizations compute a weight from parameters alone. In
evaluation it is a constant, so that a plain weight with its values is the same network.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm, SpectralNormLoadStateDictPreHook
from torch.nn.utils.weight_norm import WeightNorm

from .state import copied


@dataclass(frozen=True)
class Folded:
    """A model without the reparametrizations that could be folded.

    Attributes:
        model: shares all other weights with the model that it was made from; is that itself where there were none.
        keys: the keys of that model's state_dict that are gone, each with the key of the weight that it went into.
        kept: paths of weights that are not constant, with the reason.
    """

    model: nn.Module
    keys: dict[str, str]
    kept: dict[str, str]


def folded(model: nn.Module) -> Folded:
    """A copy of a model with weights where it computes them from others; the model itself where it does not.

    A weight that is made of frozen parameters alone is frozen.
    """
    modules = {id(module): module for module in model.modules() if any(_reparametrizations(module))}
    kept: dict[str, str] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        if id(module) in modules:
            place = f"{path}." if path else ""
            kept |= {f"{place}{one.name}": reason for one in _reparametrizations(module) if (reason := one.changes())}
    if all(one.changes() for module in modules.values() for one in _reparametrizations(module)):
        return Folded(model, {}, kept)
    own = {id(t) for module in modules.values() for t in (*module.parameters(), *module.buffers())}
    shared = {id(t): t for t in (*model.parameters(), *model.buffers()) if id(t) not in own}
    new = copied(model, shared)
    paths: dict[int, list[str]] = {}
    for path, module in new.named_modules(remove_duplicate=False):
        paths.setdefault(id(module), []).append(f"{path}." if path else "")
    keys: dict[str, str] = {}
    for module in list(new.modules()):
        for one in list(_reparametrizations(module)):
            if not one.changes():
                gone = one.fold()
                keys |= {f"{place}{key}": f"{place}{one.name}" for place in paths[id(module)] for key in gone}
    return Folded(new, keys, kept)


@dataclass(frozen=True)
class _Reparametrization:
    """One weight of a module that is computed from others.

    Attributes:
        name: of the weight.
        sources: parameters that it is made of.
        changes: why it is another one at every call; empty where it is not.
        remove: put these values in its place, for good.
    """

    module: nn.Module
    name: str
    sources: tuple[Tensor, ...]
    changes: Callable[[], str]
    remove: Callable[[], None]

    def fold(self) -> list[str]:
        """Put a weight in its place; returns the keys of the module's state that are gone with it."""
        before = self.module.state_dict(keep_vars=True)
        trained = any(source.requires_grad for source in self.sources)
        self.remove()
        weight = getattr(self.module, self.name)
        if isinstance(weight, nn.Parameter):
            weight.requires_grad_(trained)
        after = self.module.state_dict(keep_vars=True)
        return [key for key in before if key not in after]


def _reparametrizations(module: nn.Module) -> Iterator[_Reparametrization]:
    """Those of a module itself, by hooks or by parametrizations."""
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm):
            parts = (getattr(module, f"{hook.name}_{part}") for part in "gv")
            yield _Reparametrization(
                module, hook.name, tuple(parts), _never, _call(remove_weight_norm, module, hook.name)
            )
        elif isinstance(hook, SpectralNorm):
            source = getattr(module, f"{hook.name}_orig")
            changes = _call(_iterates, module)
            remove = _call(_unspectral, module, hook.name)
            yield _Reparametrization(module, hook.name, (source,), changes, remove)
        elif isinstance(hook, prune.BasePruningMethod):
            name = str(hook._tensor_name)
            source = getattr(module, f"{name}_orig")
            yield _Reparametrization(module, name, (source,), _never, _call(prune.remove, module, name))
    if parametrize.is_parametrized(module):
        lists: Any = module.parametrizations
        for name, functions in lists.items():
            sources = tuple(functions.parameters())
            changes = _call(_varies, functions)
            yield _Reparametrization(module, name, sources, changes, _call(_unparametrize, module, name))


def _call(function: Callable[..., Any], *args: Any) -> Callable[[], Any]:
    return lambda: function(*args)


def _never() -> str:
    return ""


def _iterates(module: nn.Module) -> str:
    return "a spectral normalization changes it at every call in training mode" if module.training else ""


def _varies(functions: nn.Module) -> str:
    """Why a parametrized weight is none that stays; looked at on a copy, as looking may change it."""
    twin = copy.deepcopy(functions)
    with torch.no_grad():
        first, second = twin(), twin()
        still = torch.equal(first, second)
        steady = all(torch.equal(a, b) for a, b in zip(twin.buffers(), functions.buffers(), strict=True))
        if still and steady:
            return ""
        if not functions.training:
            return "its parametrization computes something else at every call"
        return "its parametrization changes it at every call in training mode"


def _unspectral(module: nn.Module, name: str) -> None:
    """As torch's `remove_spectral_norm`, which leaves the hook by which the module asks a state for the old weight."""
    remove_spectral_norm(module, name)
    for key, held in list(module._load_state_dict_pre_hooks.items()):
        hook = getattr(held, "hook", held)  # torch wraps it, and so does not find it
        if isinstance(hook, SpectralNormLoadStateDictPreHook) and hook.fn.name == name:
            del module._load_state_dict_pre_hooks[key]


def _unparametrize(module: nn.Module, name: str) -> None:
    """As torch's `remove_parametrizations`, which would change the class that a copy shares with its original."""
    lists: Any = module.parametrizations
    with torch.no_grad():
        value = getattr(module, name).detach().clone()
    is_parameter = any(True for _ in lists[name].parameters(recurse=False))
    rest = {other: functions for other, functions in lists.items() if other != name}
    if rest:
        del lists[name]
        module.__class__ = _without(type(module), name)
    else:
        del module._modules["parametrizations"]
        module.__class__ = type(module).__mro__[1]
    if is_parameter:
        module.register_parameter(name, nn.Parameter(value))
    else:
        module.register_buffer(name, value)


def _without(kind: type[nn.Module], name: str) -> type[nn.Module]:
    """A parametrized class without one of its properties."""
    rest = {key: value for key, value in vars(kind).items() if key not in (name, "__dict__", "__weakref__")}
    new: type[nn.Module] = type(kind.__name__, kind.__bases__, rest)
    return new
