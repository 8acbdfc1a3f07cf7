"""The state of a model: kept as it was while it is traced, and split into what a `Program` holds."""

from __future__ import annotations

import copy
import keyword
import random
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from ..base.errors import CaptureError, one_line, source_line
from ..base.torch_state import own_randomness
from ..graph.copying import follow


def copied(model: nn.Module, memo: dict[int, Any] | None = None) -> nn.Module:
    """A deep copy; results of earlier calls that the model keeps as attributes lose their history, which has no copy.

    Deep supervision keeps such tensors, and so does the old `torch.nn.utils.weight_norm`, which makes them anew at each
    call. `memo` is deepcopy's: what is in it, by id, is not copied, and afterwards it has the copy of every object.
    """
    kept = (leaf for module in model.modules() for leaf in pytree.tree_leaves(vars(module)) if isinstance(leaf, Tensor))
    memo = {} if memo is None else memo
    memo |= {id(tensor): tensor.detach().clone() for tensor in kept if not tensor.is_leaf}
    try:
        for module in reversed(list(model.modules())):  # the inner ones first: Python's recursion has a limit
            copy.deepcopy(module, memo)
        twin: nn.Module = memo[id(model)]
        follow(twin, memo)
        if twin.state_dict().keys() != model.state_dict().keys():
            raise TypeError("its copy holds other weights")
        return twin
    except Exception as error:
        raise CaptureError(
            f"{type(model).__name__} cannot be copied, and is not rewritten in place: {_uncopied(model)}"
            f"{one_line(error)}{source_line(error)}",
            code="untraceable",
        ) from error


def _uncopied(model: nn.Module) -> str:
    """The first attribute that cannot be copied, to be followed by the reason; empty where each one can by itself."""
    for path, module in reversed(list(model.named_modules())):
        for name, value in (*vars(module).items(), *module._parameters.items(), *module._buffers.items()):
            if name in ("_modules", "_parameters", "_buffers"):
                continue
            try:
                copy.deepcopy(value)
            except Exception:
                return f"{path}.{name}: " if path else f"{name}: "
    return ""


@contextmanager
def preserved(model: nn.Module) -> Iterator[None]:
    """Put back what tracing changes: attributes that forward writes, and the states of random number generators."""
    saved = [(vars(module), dict(vars(module))) for module in model.modules()]
    contents = [(value, _plain(value)) for value in _containers(model)]
    with own_randomness():
        try:
            yield
        finally:
            for state, was in saved:
                if not _same(list(state.items()), list(was.items())):
                    state.clear()
                    state.update(was)
            for value, content in contents:
                _refill(value, content)


@contextmanager
def real_device() -> Iterator[None]:
    """Make new tensors where values are, also under `torch.device("meta")`."""
    with torch.device("cpu") if torch.get_default_device().type == "meta" else nullcontext():
        yield


def random_states() -> tuple[object, ...]:
    """The states of Python's, numpy's and torch's global generators, in a form that can be compared."""
    state: Any = np.random.get_state()
    return random.getstate(), state[1].tobytes(), state[2], torch.get_rng_state().numpy().tobytes()


def _containers(model: nn.Module) -> list[Any]:
    """All lists, dicts and sets that the modules hold, at any depth."""
    found: dict[int, Any] = {}
    pending: list[Any] = [vars(module) for module in model.modules()]
    while pending:
        value = pending.pop()
        for item in value.values() if isinstance(value, dict) else value:
            if isinstance(item, (list, dict, set, tuple)) and id(item) not in found:
                found[id(item)] = item
                pending.append(item)
    return [value for value in found.values() if not isinstance(value, tuple)]


def _plain(value: Any) -> Any:
    """What a container holds; copy.copy takes ten times as long for the OrderedDicts that modules have by the dozen."""
    return next(plain(value) for plain in (list, dict, set) if isinstance(value, plain))


def _refill(value: Any, content: Any) -> None:
    if isinstance(value, list):
        if not _same(value, content):
            value[:] = content
    elif isinstance(value, dict):
        if not _same(list(value.items()), list(content.items())):
            value.clear()
            value.update(content)
    elif value != content:
        value.clear()
        value.update(content)


def _same(one: list[Any], other: list[Any]) -> bool:
    """Whether two lists hold the same objects; pairs are compared by what they hold."""
    if len(one) != len(other):
        return False
    for a, b in zip(one, other, strict=True):
        paired = isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b) == 2
        if not (all(x is y for x, y in zip(a, b, strict=True)) if paired else a is b):
            return False
    return True


def split_state(
    model: nn.Module, graph: fx.Graph
) -> tuple[dict[str, nn.Module], dict[str, Tensor], dict[str, type[nn.Module]], set[str]]:
    """Leaf modules, the tensors that containers hold, the containers' classes, and the non-persistent buffers.

    A module registered under two names appears under both, so that no state_dict key is lost.
    """
    called = {str(node.target) for node in graph.nodes if node.op == "call_module"}
    read_from = {str(node.target).rpartition(".")[0] for node in graph.nodes if node.op == "get_attr"}
    named = dict(model.named_modules(remove_duplicate=False))
    called_modules = {id(named[path]) for path in called}
    modules: dict[str, nn.Module] = {}
    tensors: dict[str, Tensor] = {}
    containers: dict[str, type[nn.Module]] = {}
    transient: set[str] = set()
    for path, module in named.items():
        _check_name(path)
        if any(path.startswith(f"{leaf}.") for leaf in _ancestors(path, modules)):
            continue
        unused = path and not module._modules and path not in read_from
        if unused or id(module) in called_modules:
            modules[path] = module
            continue
        containers[path] = type(module)
        prefix = f"{path}." if path else ""
        held = {**module._parameters, **module._buffers}
        tensors |= {prefix + name: tensor for name, tensor in held.items() if tensor is not None}
        transient |= {
            prefix + name for name in module._non_persistent_buffers_set if module._buffers.get(name) is not None
        }
    for node in graph.nodes:
        path, (owner, _, name) = str(node.target), str(node.target).rpartition(".")
        if node.op != "get_attr" or path in tensors or owner not in named or name in named[owner]._parameters:
            continue
        if owner in modules and name not in named[owner]._buffers:
            node.target = f"_{path.replace('.', '_')}"  # no module may gain a buffer by the name of its attribute
        if isinstance(value := getattr(named[owner], name, None), Tensor) and name not in named[owner]._buffers:
            tensors[str(node.target)] = value  # a plain attribute, neither parameter nor buffer
            transient.add(str(node.target))
    return modules, tensors, containers, transient


def _check_name(path: str) -> None:
    """Refuse what no source can say."""
    name = path.rpartition(".")[2]
    if keyword.iskeyword(name):
        raise CaptureError(
            f"module {path!r} is named by a Python keyword, which no source can say: rename {name!r}", code="bad-name"
        )


def _ancestors(path: str, modules: dict[str, nn.Module]) -> list[str]:
    parts = path.split(".")
    return [p for p in (".".join(parts[:i]) for i in range(1, len(parts))) if p in modules]


def drop_unread(graph: fx.Graph) -> None:
    """Erase reads of parameters and attributes that came to nothing, such as that of `x.to(self.weight.dtype)`."""
    for node in reversed(graph.nodes):
        pure = node.op == "get_attr" or node.target is getattr
        if pure and not node.users:
            graph.erase_node(node)
