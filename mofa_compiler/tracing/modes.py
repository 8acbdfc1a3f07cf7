"""Train and eval mode: which decisions on `self.training` a graph can go on making at run time.

Leaf modules (batch normalization, dropout) follow the mode by themselves. Python code does not: it runs once, while the
model is traced. A flag that is only passed on, as in `F.dropout(x, p, self.training)`, is found by comparing the traces
in both modes, and reads the mode at run time from then on. Any other difference is told to the user.
"""

from __future__ import annotations

import inspect
from types import CodeType
from typing import Any

from torch import fx, nn


class CaptureWarning(UserWarning):
    """What was captured is right for the mode that the model was in, but not for the other one."""


def asks_for_mode(model: nn.Module) -> bool:
    """Whether code of the model's own classes, not torch's, mentions `training`."""
    own = {kind for module in model.modules() for kind in type(module).__mro__ if not _is_torch(kind)}
    functions = (inspect.unwrap(value) for kind in own for value in vars(kind).values() if callable(value))
    return any(_mentions_training(function.__code__) for function in functions if inspect.isfunction(function))


def _mentions_training(code: CodeType) -> bool:
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return "training" in code.co_names or any(map(_mentions_training, inner))


def _is_torch(kind: type) -> bool:
    return kind.__module__.split(".")[0] in ("torch", "builtins", "mofa_compiler")


def follow_mode(graph: fx.Graph, other: fx.Graph, training: bool) -> bool:
    """Let the flags in which the trace in the other mode differs read the mode at run time.

    Returns False, with the graph as it was, where the traces differ in anything else.
    """
    nodes, others = list(graph.nodes), list(other.nodes)
    if [(node.op, node.target) for node in nodes] != [(node.op, node.target) for node in others]:
        return False
    twins = dict(zip(nodes, others, strict=True))
    changed: dict[fx.Node, tuple[Any, Any]] = {}
    for node, twin in twins.items():
        try:
            merged = (
                _merged(node.args, twin.args, twins, training),
                _merged(node.kwargs, twin.kwargs, twins, training),
            )
        except _DifferentError:
            return False
        if _contains_mode(merged):
            changed[node] = merged
    for node, (args, kwargs) in changed.items():
        with graph.inserting_before(node):
            mode = graph.get_attr("training")
        mode.meta["val"] = training
        node.args, node.kwargs = _filled(args, mode), _filled(kwargs, mode)
    return True


class _DifferentError(Exception):
    """The traces differ in more than a flag."""


_MODE = object()


def _merged(value: Any, other: Any, twins: dict[fx.Node, fx.Node], training: bool) -> Any:
    if isinstance(value, fx.Node):
        if twins[value] is not other:
            raise _DifferentError
        return value
    if type(value) is bool and value is training and other is (not training):
        return _MODE
    if type(value) is not type(other):
        raise _DifferentError
    if isinstance(value, (tuple, list)):
        if len(value) != len(other):
            raise _DifferentError
        return type(value)(_merged(a, b, twins, training) for a, b in zip(value, other, strict=True))
    if isinstance(value, dict):
        if value.keys() != other.keys():
            raise _DifferentError
        return {key: _merged(item, other[key], twins, training) for key, item in value.items()}
    if isinstance(value, slice):
        _merged((value.start, value.stop, value.step), (other.start, other.stop, other.step), twins, training)
        return value
    if value != other:
        raise _DifferentError
    return value


def _contains_mode(value: Any) -> bool:
    if isinstance(value, dict):
        value = tuple(value.values())
    return value is _MODE or (isinstance(value, (tuple, list)) and any(map(_contains_mode, value)))


def _filled(value: Any, mode: fx.Node) -> Any:
    if value is _MODE:
        return mode
    if isinstance(value, (tuple, list)):
        return type(value)(_filled(item, mode) for item in value)
    if isinstance(value, dict):
        return {key: _filled(item, mode) for key, item in value.items()}
    return value
