"""The values of graph nodes, computed without computing: shapes and dtypes on meta tensors."""

from __future__ import annotations

import copy
import itertools
import logging
import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree

from . import meta_shapes, recurrent

Kind = TypeVar("Kind", bound=nn.Module)

_INTERPOLATE = ("input", "size", "scale_factor", "mode", "align_corners", "recompute_scale_factor", "antialias")


class Scope(Protocol):
    """What the nodes of a graph refer to: a program, or a model that is being traced."""

    @property
    def modules(self) -> Mapping[str, nn.Module]: ...
    def tensor(self, path: str) -> Any: ...
    @property
    def training(self) -> bool: ...
    @property
    def device(self) -> torch.device: ...


def recorded(node: fx.Node) -> Any:
    """The value that a node has written down: meta tensors and plain Python values."""
    return node.meta["val"]


def evaluate(node: fx.Node, scope: Scope, value: Callable[[fx.Node], Any] = recorded) -> Any:
    """The value of one node on the meta values of its arguments, those that are recorded unless told."""
    args, kwargs = fx.map_arg(node.args, value), fx.map_arg(node.kwargs, value)
    with torch.no_grad():
        if node.op == "call_module":
            module = scope.modules[str(node.target)]
            twin = meta_twin(module) if _has_values(module) or type(module) is nn.Upsample else module
            if type(twin) is nn.Upsample and _is_slow(twin.mode, *args):
                twin.mode, twin.align_corners = "nearest", None
            return recurrent.output(twin, args, kwargs) if recurrent.is_recurrent(twin) else twin(*args, **kwargs)
        if node.target is F.interpolate:
            return F.interpolate(**_to_size(args, kwargs))
        if node.op == "call_function":
            if node.target in (operator.eq, operator.ne):  # meta tensors stand for tensors of the network's device
                args = tuple(scope.device if arg == torch.device("meta") else arg for arg in args)
            return meta_shapes.call(cast(Callable[..., Any], node.target), args, kwargs)
        if node.op == "call_method" and isinstance(args[0], Tensor) and hasattr(Tensor, str(node.target)):
            return meta_shapes.call(getattr(Tensor, str(node.target)), args, kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        if node.target == "training":
            return scope.training
        return scope.tensor(str(node.target)).to("meta")


def _is_slow(mode: str, x: Any = None) -> bool:
    """Whether torch takes milliseconds for the shape of an interpolation, which in another mode is the same."""
    return mode in ("bilinear", "bicubic") and isinstance(x, Tensor) and x.is_meta and x.dim() == 4


def _to_size(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call of `F.interpolate`, in the mode in which its shape is found fastest."""
    given = {**dict(zip(_INTERPOLATE, args, strict=False)), **kwargs}
    if not _is_slow(given.get("mode", ""), given.get("input")):
        return given
    return {**given, "mode": "nearest", "align_corners": None, "antialias": False}


def _has_values(module: nn.Module) -> bool:
    return any(not tensor.is_meta for tensor in itertools.chain(module.parameters(), module.buffers()))


def _shape(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, device="meta", requires_grad=False)


def meta_twin(module: Kind, tensor_twin: Callable[[Tensor], Tensor] = _shape) -> Kind:
    """A shallow copy of `module` whose parameters and buffers are meta tensors; no weight is copied."""
    twin = object.__new__(type(module))  # copy.copy would go by pickle's way, which parametrized modules refuse
    state = twin.__dict__
    state.update(module.__dict__)
    for kind in ("_parameters", "_buffers"):
        state[kind] = {name: None if tensor is None else tensor_twin(tensor) for name, tensor in state[kind].items()}
    state["_modules"] = {name: child and meta_twin(child, tensor_twin) for name, child in state["_modules"].items()}
    return twin


def evaluate_anyhow(node: fx.Node, scope: Scope, *, compute: bool) -> Any:
    """The value of a node as meta tensors and plain Python values.

    Constants that live on a real device do not mix with meta tensors; fake tensors, which carry a device, come next.
    Only where `compute` allows it, for an opaque part that looks at values, is anything computed, on zeros.
    """
    try:
        return evaluate(node, scope)
    except Exception as error:
        attempts: list[AbstractContextManager[Any]] = [FakeTensorMode(allow_non_fake_inputs=True)]
        if compute:
            attempts.append(nullcontext())
        for attempt in attempts:
            try:
                return _evaluate_in(attempt, node, scope)
            except Exception:
                continue
        raise error


def wants_values(error: BaseException) -> bool:
    """Whether an evaluation, the cause of this error, failed for want of values rather than for shapes."""
    cause = error.__cause__
    return isinstance(cause, NotImplementedError) or "meta tensor" in str(cause) or "meta device" in str(cause)


def _evaluate_in(mode: AbstractContextManager[Any], node: fx.Node, scope: Scope) -> Any:
    """The value of a node, computed under a mode on zeros of its arguments' shapes, as meta tensors."""
    held = scope.modules[str(node.target)].parameters() if node.op == "call_module" else iter(())
    device = next((tensor.device for tensor in held), torch.device("cpu"))

    def zeros(value: Any) -> Any:
        values = fx.map_arg(value, lambda n: n.meta["val"])
        return pytree.tree_map_only(Tensor, lambda t: torch.zeros(t.shape, dtype=t.dtype, device=device), values)

    with _quiet(), mode, torch.no_grad():
        args, kwargs = zeros(node.args), zeros(node.kwargs)
        if node.op == "call_module":  # a copy: running statistics are the user's
            value = copy.deepcopy(scope.modules[str(node.target)]).eval()(*args, **kwargs)
        elif node.op == "call_function":
            value = cast(Callable[..., Any], node.target)(*args, **kwargs)
        else:
            value = getattr(args[0], str(node.target))(*args[1:], **kwargs)
    return pytree.tree_map_only(Tensor, lambda t: torch.empty_like(t, device="meta"), value)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch from logging a failed fake call: our error says it in one line."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    was = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = was
