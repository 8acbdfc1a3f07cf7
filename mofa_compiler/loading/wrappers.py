"""Wrappers: what compilers, trainers and averages put around a network without changing what it computes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from ..base.errors import CaptureError

_HELD: Mapping[tuple[str, str], str] = {
    ("torch", "OptimizedModule"): "_orig_mod",  # torch.compile
    ("torch", "DataParallel"): "module",
    ("torch", "DistributedDataParallel"): "module",
    ("torch", "AveragedModel"): "module",
    ("torch", "CheckpointWrapper"): "_checkpoint_wrapped_module",
    ("timm", "ModelEma"): "ema",
    ("timm", "ModelEmaV2"): "module",
    ("timm", "ModelEmaV3"): "module",
    ("lightning", "_FabricModule"): "_original_module",
    ("lightning_fabric", "_FabricModule"): "_original_module",
    ("ema_pytorch", "EMA"): "ema_model",
}
"""Where a wrapper holds the network, by its package and class"""

_SHARDED = ("torch", "FullyShardedDataParallel")

_PARTS = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_fpw_module)\.")
"""Parts of names that only wrappers make; `module` may also be a layer's own"""


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside wrappers, also inside those around its parts; it shares its weights, and `model` stays as is.

    What is no module, or wrapped by nothing that is known, is returned itself.

    Raises:
        CaptureError: its weights lie in shards on several processes.
    """
    if not isinstance(model, nn.Module) or all(_held(module) is None for module in model.modules()):
        return model
    return _unwrapped(model, {})


def unwrapped_key(key: str) -> str:
    """A state_dict's key without the parts that only wrappers make."""
    return _PARTS.sub("", key)


def _unwrapped(module: nn.Module, known: dict[int, nn.Module]) -> nn.Module:
    if id(module) in known:
        return known[id(module)]
    inner = _held(module)
    if inner is not None:
        known[id(module)] = found = _unwrapped(inner, known)
        return found
    known[id(module)] = module  # a module that holds itself is left alone
    children = {name: None if m is None else _unwrapped(m, known) for name, m in module._modules.items()}
    if all(children[name] is child for name, child in module._modules.items()):
        return module
    twin = object.__new__(type(module))
    twin.__dict__.update(vars(module), _modules=children)
    known[id(module)] = twin
    return twin


def _held(module: nn.Module) -> nn.Module | None:
    for kind in type(module).__mro__:
        name = kind.__module__.partition(".")[0], kind.__name__
        if name == _SHARDED:
            raise CaptureError(
                f"{kind.__name__} holds shards of a network's weights: load its full state_dict into the network "
                "itself",
                code="untraceable",
            )
        attribute = _HELD.get(name)
        if attribute is not None:
            inner = getattr(module, attribute, None)
            return inner if isinstance(inner, nn.Module) else None
    return None


def original_of(script: Any) -> Callable[..., Any] | None:
    """The Python function that a scripted one was made from."""
    python = getattr(script, "_torchdynamo_inline", None)
    return python if callable(python) else None
