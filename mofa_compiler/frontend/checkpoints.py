"""Activation checkpointing by a network's own `torch.autograd.Function`: seen through, as torch's own is.

Recomputing activations is the trainer's choice, not the network's. A Function is one where its forward calls a function
that is among its arguments, once, on its arguments, and returns what that returns.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.proxy import TraceError
from torch.utils import _pytree as pytree
from torch.utils.checkpoint import CheckpointFunction

_DETACHING = ("detach", "detach_", "requires_grad_")


class _Context(SimpleNamespace):
    """What forward may keep things in for a backward, which nobody calls."""

    def save_for_backward(self, *tensors: Any) -> None:
        self.saved_tensors = tensors

    def mark_dirty(self, *tensors: Any) -> None: ...
    def mark_non_differentiable(self, *tensors: Any) -> None: ...
    def set_materialize_grads(self, value: bool) -> None: ...


class _Once:
    """A function that notes how it is called; what it computes has gradients, whatever forward switches off."""

    def __init__(self, function: Callable[..., Any]):
        self.function = function
        self.calls: list[tuple[Any, Any]] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = pytree.tree_map_only(fx.Proxy, _attached, (args, kwargs))
        with torch.enable_grad():
            result = self.function(*args, **kwargs)
        self.calls.append(((args, kwargs), result))
        return result


def is_checkpoint(function: type[torch.autograd.Function], args: tuple[Any, ...]) -> bool:
    """Whether a Function is applied to a function, which no graph could hold."""
    return any(map(_is_function, args))


def seen_through(function: type[torch.autograd.Function], args: tuple[Any, ...]) -> Any:
    """Trace the function that a checkpoint is given.

    Raises:
        TraceError: forward computes something else than what that function does.
    """
    if function is CheckpointFunction:
        return args[0](*args[2:])
    given = tuple(_Once(arg) if _is_function(arg) else arg for arg in args)
    context = _Context(needs_input_grad=tuple(isinstance(arg, (Tensor, fx.Proxy)) for arg in args))
    takes_context = function.setup_context is torch.autograd.Function.setup_context
    returned = function.forward(*((context,) if takes_context else ()), *given)
    calls = [call for once in given if isinstance(once, _Once) for call in once.calls]
    name = f"{function.__module__}.{function.__qualname__}"
    if len(calls) != 1:
        raise TraceError(f"{name} is given a function, which its forward calls {len(calls)} times: it cannot be traced")
    used, result = calls[0]
    known = {id(_node(leaf)) for leaf in pytree.tree_leaves(args)}
    if any(isinstance(leaf, fx.Proxy) and id(leaf.node) not in known for leaf in pytree.tree_leaves(used)):
        raise TraceError(f"{name} is given a function, which its forward calls on other values: it cannot be traced")
    if not _same(pytree.tree_map_only(fx.Proxy, _attached, returned), result):
        raise TraceError(f"{name} is given a function, and returns something else than that: it cannot be traced")
    _erase_detached(result)
    return result


def _same(one: Any, other: Any) -> bool:
    ours, theirs = pytree.tree_leaves(one), pytree.tree_leaves(other)
    return len(ours) == len(theirs) and all(_node(a) is _node(b) for a, b in zip(ours, theirs, strict=True))


def _erase_detached(result: Any) -> None:
    """Drop the views that nobody reads any more."""
    proxy = next((leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, fx.Proxy)), None)
    for node in reversed(proxy.node.graph.nodes) if proxy is not None else ():
        if node.target in _DETACHING and not node.users:
            node.graph.erase_node(node)


def _is_function(value: Any) -> bool:
    return callable(value) and not isinstance(value, (type, Tensor, fx.Proxy))


def _attached(proxy: fx.Proxy) -> fx.Proxy:
    """The value that a proxy is a detached view of."""
    while proxy.node.op == "call_method" and proxy.node.target in _DETACHING:
        viewed: Any = proxy.node.args[0]
        proxy = type(proxy)(viewed, proxy.tracer)
    return proxy


def _node(value: Any) -> Any:
    return value.node if isinstance(value, fx.Proxy) else value
