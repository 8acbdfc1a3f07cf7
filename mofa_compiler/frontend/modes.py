"""Train and eval mode: which decisions on `self.training` a graph can go on making at run time.

Leaf modules (batch normalization, dropout) follow the mode by themselves. Python code does not: it runs once, while the
model is traced. A flag that is only passed on, as in `F.dropout(x, p, self.training)`, is found by comparing the traces
in both modes, and reads the mode at run time from then on. Any other difference is told to the user.
"""

from __future__ import annotations

import inspect
from types import CodeType
from typing import Any

from torch import Tensor, fx, nn

from ..graph.node_names import path_of
from .proxies import GUARDS
from .randomness import makes_noise


class CaptureWarning(UserWarning):
    """What was captured is right for the mode that the model was in, but not for the other one."""


def asks_for_mode(model: nn.Module) -> bool:
    """Whether code of the model's own classes, not torch's, mentions `training`."""
    own = {kind for module in model.modules() for kind in type(module).__mro__ if not _is_torch(kind)}
    held = (value for kind in own for value in vars(kind).values())
    plain = (getattr(value, "fget", None) or getattr(value, "__func__", value) for value in held)
    functions = (inspect.unwrap(value) for value in plain if callable(value))
    return any(_mentions_training(function.__code__) for function in functions if inspect.isfunction(function))


def _mentions_training(code: CodeType) -> bool:
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return "training" in (*code.co_names, *code.co_consts) or any(map(_mentions_training, inner))


def _is_torch(kind: type) -> bool:
    return kind.__module__.split(".")[0] in ("torch", "builtins", "mofa_compiler")


def follow_mode(graph: fx.Graph, other: fx.Graph, training: bool) -> list[str]:
    """Let the flags in which the trace in the other mode differs read the mode at run time.

    Module by module: what differs in one does not keep the flags of another from following. Dropout, also by whole
    paths, is what modes are meant to differ in.

    Args:
        graph: the trace in the mode `training`; flags are changed in it.
        other: the trace in the other mode.
        training: the mode of `graph`.

    Returns:
        The paths of the modules that do something else, beyond dropout, in the other mode.
    """
    ours, theirs = _Trace(graph), _Trace(other)
    paths = dict.fromkeys([*ours.modules, *theirs.modules])
    different = [path for path in paths if ours.kinds(path) != theirs.kinds(path)]
    same = paths.keys() - different
    pairs = [pair for path in same for pair in zip(ours.modules[path], theirs.modules[path], strict=True)]
    merge = _Merge(training, pairs, ours, theirs)
    changed: dict[fx.Node, tuple[Any, Any]] = {}
    for node, twin in pairs:
        try:
            args, kwargs = merge(node.args, twin.args), merge(node.kwargs, twin.kwargs)
        except _DifferentError:
            different.append(path_of(node))
            continue
        if _contains_mode(args) or _contains_mode(kwargs):
            changed[node] = (args, kwargs)
    for node, (args, kwargs) in changed.items():
        with graph.inserting_before(node):
            mode = _read_mode(graph, training)
        node.args, node.kwargs = _filled(args, mode), _filled(kwargs, mode)
    for node in ours.masked if training else ():
        _mask_in_training_only(graph, node, ours)
    return list(dict.fromkeys(different))


def by_mode(training: bool, trained: Any, evaluated: Any) -> Any:
    """One of two values, by the mode."""
    return trained if training else evaluated


def _mask_in_training_only(graph: fx.Graph, node: fx.Node, trace: _Trace) -> None:
    """Let what reads a masked value read the value itself in eval mode."""
    users = [user for user in node.users if user not in trace.passed]
    with graph.inserting_after(node):
        mode = _read_mode(graph, True)
    with graph.inserting_after(mode):
        chosen = graph.call_function(by_mode, (mode, node, trace.source(node)))
    chosen.meta = {"val": node.meta["val"], "nn_module_stack": node.meta.get("nn_module_stack")}
    for user in users:
        user.replace_input_with(node, chosen)


def _read_mode(graph: fx.Graph, training: bool) -> fx.Node:
    mode = graph.get_attr("training")
    mode.meta["val"] = training
    return mode


class _Trace:
    """The nodes of each module that values depend on, in order; masks of stochastic depth, and their use, left out.

    Attributes:
        modules: the nodes by the path of their module.
        noise: random numbers and what is computed from them alone.
        passed: what changes no value, and products with noise.
        masked: products with noise that something else reads.
    """

    def __init__(self, graph: fx.Graph):
        self.noise: set[fx.Node] = set()
        self.passed: set[fx.Node] = set()
        self.masked: list[fx.Node] = []
        products: set[fx.Node] = set()
        for node in graph.nodes:
            sources = [source for source in node.all_input_nodes if isinstance(source.meta.get("val"), Tensor)]
            noisy = [source for source in sources if source in self.noise]
            if makes_noise(node) or (noisy and len(noisy) == len(sources)):
                self.noise.add(node)
            elif noisy and _scales(node):
                products.add(node)
            elif node.target in _NEUTRAL:
                self.passed.add(node)
        self.passed |= products
        for node in graph.nodes:
            beside = [*node.all_input_nodes, *node.users]
            if _scales(node) and len(node.all_input_nodes) == 1 and not products.isdisjoint(beside):
                self.passed.add(node)  # by the probability of being kept
        idle: set[fx.Node] = set()
        for node in reversed(graph.nodes):
            counts = node.target == "add_" and _is_counter(node.meta.get("val"))
            free = node.op == "get_attr" or node.target is getattr or counts
            unread = all(user in idle or user in self.noise for user in node.users)
            if node.target in GUARDS or (unread and (free or node.users)):
                idle.add(node)
        self.modules: dict[str, list[fx.Node]] = {}
        for node in graph.nodes:
            if not any(node in left_out for left_out in (idle, self.noise, self.passed)):
                self.modules.setdefault(path_of(node), []).append(node)

        for node in graph.nodes:
            read = any(user not in self.passed and user not in self.noise for user in node.users)
            if node in self.passed and read and self._is_masked(node):
                self.masked.append(node)

    def _is_masked(self, node: fx.Node) -> bool:
        while node in self.passed:
            if not self.noise.isdisjoint(node.all_input_nodes):
                return True
            node = node.all_input_nodes[0]
        return False

    def kinds(self, path: str) -> list[tuple[str, Any]]:
        return [(node.op, node.target) for node in self.modules.get(path, [])]

    def source(self, node: fx.Node) -> fx.Node:
        """Where a value comes from, past what changes nothing and past the use of masks."""
        while node in self.passed:
            node = next(source for source in node.all_input_nodes if source not in self.noise)
        return node


_NEUTRAL = {"contiguous"}
"""Methods that change no value."""


def _scales(node: fx.Node) -> bool:
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return name.strip("_") in ("mul", "imul", "div", "truediv", "itruediv", "multiply", "divide")


def _is_counter(value: Any) -> bool:
    """Whether a value is such as batch normalization counts batches by."""
    return isinstance(value, Tensor) and not value.is_floating_point() and value.ndim == 0


class _DifferentError(Exception):
    """The traces differ in more than a flag."""


_MODE = object()


class _Merge:
    """The arguments of two nodes in one, with `_MODE` in place of flags that equal the mode in both traces."""

    def __init__(self, training: bool, pairs: list[tuple[fx.Node, fx.Node]], ours: _Trace, theirs: _Trace):
        self.training = training
        self.twins = dict(pairs)
        self.others = set(self.twins.values())
        self.ours, self.theirs = ours, theirs

    def __call__(self, value: Any, other: Any) -> Any:
        if isinstance(value, fx.Node) and isinstance(other, fx.Node):
            mine, theirs = self.ours.source(value), self.theirs.source(other)
            # What has no twin belongs to a module that is known to differ.
            if mine in self.twins and theirs in self.others and self.twins[mine] is not theirs:
                raise _DifferentError
            return value
        if type(value) is bool and value is self.training and other is (not self.training):
            return _MODE
        if type(value) is not type(other):
            raise _DifferentError
        if isinstance(value, (tuple, list)):
            if len(value) != len(other):
                raise _DifferentError
            return type(value)(self(a, b) for a, b in zip(value, other, strict=True))
        if isinstance(value, dict):
            if value.keys() != other.keys():
                raise _DifferentError
            return {key: self(item, other[key]) for key, item in value.items()}
        if isinstance(value, slice):
            self((value.start, value.stop, value.step), (other.start, other.stop, other.step))
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
