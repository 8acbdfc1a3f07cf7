"""A network watched while it runs: what its modules are called with, and which custom autograd functions they use."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..base.torch_state import patched_names
from ..graph.call_spec import CallSpec, map_tree
from ..numerics.running import run


@dataclass
class Observed:
    """What was seen in one run.

    Attributes:
        output: what the network returned.
        calls: arguments of every module's first call by its path, in the order of the calls; empty if not asked for.
        autograd: paths of the modules that call a custom autograd function, by its name.
    """

    output: Any = None
    calls: dict[str, CallSpec] = field(default_factory=dict)
    autograd: dict[str, list[str]] = field(default_factory=dict)


def observe(
    module: nn.Module, call: CallSpec, *, keep_calls: bool = False, within: list[str] | None = None
) -> Observed:
    """Run a network in eval mode. Raises whatever it raises; `within` ends with the path of the module that did."""
    seen = Observed()
    within = [] if within is None else within
    hooks = []
    for path, inner in module.named_modules():

        def enter(_: nn.Module, args: Any, kwargs: Any, path: str = path) -> None:
            within.append(path)
            if keep_calls and path not in seen.calls:
                seen.calls[path] = CallSpec(*map_tree((args, kwargs), Tensor, Tensor.clone))

        def leave(*_: Any) -> None:
            within.pop()

        hooks.append(inner.register_forward_pre_hook(enter, with_kwargs=True))
        hooks.append(inner.register_forward_hook(leave))
    try:
        with _watched_autograd(seen.autograd, within):
            seen.output = run(module, call)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _watched_autograd(found: dict[str, list[str]], within: list[str]) -> AbstractContextManager[None]:
    original = torch.autograd.Function.__dict__["apply"]

    def apply(cls: type[torch.autograd.Function], *args: Any, **kwargs: Any) -> Any:
        paths = found.setdefault(cls.__name__, [])
        if within and within[-1] not in paths:
            paths.append(within[-1])
        return original.__get__(None, cls)(*args, **kwargs)

    return patched_names([(torch.autograd.Function, "apply", classmethod(apply))])
