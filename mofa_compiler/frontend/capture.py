"""`capture`: torch.fx tracing with values, computed on meta tensors.

While a model is traced, torch.fx patches `nn.Module.__call__` and `__getattr__`, and `patches` a few names more. Calls
from other threads pass through, a lock keeps two traces apart, and all is put back afterwards, also after an error.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..base.errors import CaptureError, one_line, source_line
from ..base.torch_state import import_compiler, in_normal_mode, own_randomness
from ..graph.call_spec import CallSpec, ExampleInputs, bound_call, example_call, specs
from ..graph.node_names import naming
from ..graph.plain_layers import global_hooks
from ..graph.program import Comparison, Program
from ..graph.shape_propagation import wants_values
from ..loading.wrappers import unwrapped
from .causes import advice, check_model, nesting
from .certain import drop_certain_guards
from .comparing import compare as compare_with_eager
from .modes import CaptureWarning, asks_for_mode, follow_mode
from .patches import patched
from .per_dimension import with_tuples
from .randomness import check_repeatable
from .reparametrized import Folded, folded
from .state import copied, drop_unread, preserved, random_states, real_device, split_state
from .tracer import Tracer, UnfitError


class _Lock:
    """One trace at a time, by whom."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.owner: int | None = None

    def __enter__(self) -> None:
        self._lock.acquire()
        self.owner = threading.get_ident()

    def __exit__(self, *_: object) -> None:
        self.owner = None
        self._lock.release()


_TRACING = _Lock()


@in_normal_mode
@real_device()
def capture(model: nn.Module, example_inputs: ExampleInputs = None, *, compare: bool = True) -> Program:
    """Trace `model` into a `Program` that shares its weights.

    Args:
        model: any module that torch.fx can trace; it is not modified. Of one that torch.compile, DataParallel or an
            average wraps, the network inside is traced. It is traced in the mode that it is in; a
            `CaptureWarning` says where the other mode would do something else.
        example_inputs: a tensor, a sequence of positional arguments, or a mapping of keyword arguments; arguments are
            tensors, numbers, text, None, and lists, tuples and dicts of them. Of tensors, on any device, only shapes
            and dtypes are read, and nothing but shapes is computed. The size is not baked in, but for decisions that
            forward makes on it, which raise at a size where they would come out otherwise; so do text, bools and None
            if they are others. Parameters of forward beyond the example stay at their defaults. Without an example,
            one of (1, C, 256, 256) for the first convolution. `Program.example` keeps the call.

    Raises:
        CaptureError: the model cannot be traced, makes weights in forward, computes something else at every call,
            does not take these inputs, or computes something else than its graph.
    """
    model = unwrapped(model)
    check_model(model)
    if _TRACING.owner == threading.get_ident():
        raise CaptureError(
            "capture() is called by a forward that is being captured: capture one of the two alone", code="reentered"
        )
    example = example_call(model, example_inputs)
    call = specs(example)
    if global_hooks():
        raise CaptureError(
            "there are hooks on every module there is (torch.nn.modules.module.register_module_forward_hook and its "
            "like), which tracing would write into the graph: remove them, or capture outside of what puts them there",
            code="hooks",
        )
    plain = folded(with_tuples(model))
    _warn_of_folding(plain)
    model = plain.model
    gradients = torch.is_grad_enabled()
    with own_randomness(), _TRACING:  # in this order wherever both are held
        import_compiler()
        graph, constants, tracer = _traced(model, call, gradients)
        if tracer.asked_gradients:
            _compare_gradients(model, graph, call, gradients)
        modules, tensors, containers, transient = split_state(model, graph)
        if asks_for_mode(model):
            _compare_modes(model, graph, call, gradients)
    tensors |= constants
    drop_certain_guards(graph, modules)
    drop_unread(graph)
    program = Program(
        name=type(model).__name__,
        graph=graph,
        modules=modules,
        tensors=tensors,
        containers=containers,
        example=example,
        opaque=tracer.opaque,
        transient=frozenset(transient | constants.keys()),  # no state_dict holds what tracing wrote into the graph
        training=model.training,
        folded=plain.keys,
    )
    return replace(program, comparison=_compared(model, program, gradients)) if compare else program


def _warn_of_folding(plain: Folded) -> None:
    """Say which weights are plain ones from here on, and which could not become any."""
    if plain.keys:
        message = (
            f"{_some(dict.fromkeys(plain.keys.values()))}: computed from other parameters at every call (by a weight "
            "or spectral normalization, a mask), folded into plain weights; training goes on with these"
        )
        warnings.warn(message, CaptureWarning, stacklevel=3)
    if plain.kept:
        reason = next(iter(plain.kept.values()))
        message = f"{_some(plain.kept)} is not folded into a plain weight: {reason} (.eval() stops that in training)"
        warnings.warn(message, CaptureWarning, stacklevel=3)


def _some(paths: Collection[str]) -> str:
    """The first few of them."""
    first = list(paths)[:3]
    more = f" and {len(paths) - len(first)} more" if len(paths) > len(first) else ""
    return f"{', '.join(first)}{more}"


def _compared(model: nn.Module, program: Program, gradients: bool) -> Comparison:
    """Where the graph was compared with eager; a network that is too large for that is warned about."""
    with own_randomness(), _TRACING:
        comparison = compare_with_eager(model, program, gradients=gradients)
    if comparison.too_large:
        warnings.warn(
            f"{program.name} was not compared with its graph: {comparison.reason}", CaptureWarning, stacklevel=3
        )
    return comparison


def _compare_gradients(model: nn.Module, graph: fx.Graph, call: CallSpec, gradients: bool) -> None:
    """Warn where forward asks whether gradients are recorded, and goes another way where they are not, or are."""
    try:
        theirs: fx.Graph | None = _traced(model, call, not gradients)[0]
    except CaptureError:
        theirs = None
    if theirs is None or str(theirs) != str(graph):
        mode = "with gradients" if gradients else "without gradients (torch.no_grad)"
        warnings.warn(
            f"{type(model).__name__} asks whether gradients are recorded, and does something else {mode} than "
            f"otherwise; captured is what it does {mode}: capture it in the mode that it will run in",
            CaptureWarning,
            stacklevel=4,
        )


def _traced(model: nn.Module, call: CallSpec, gradients: bool) -> tuple[fx.Graph, dict[str, Tensor], Tracer]:
    """The graph, the constants that it refers to, and the tracer, which knows the opaque parts."""
    tracer = Tracer(model, bound_call(model, call), gradients)
    with preserved(model), patched(tracer, model), torch.enable_grad():
        before, known = random_states(), set(vars(model))
        try:
            graph = naming(tracer.trace(model))
        except CaptureError:
            raise
        except Exception as error:
            if _is_recursion(error):
                raise CaptureError(
                    f"{nesting(model)}, deeper than Python follows while tracing: build it flatter, or raise "
                    "sys.setrecursionlimit",
                    code="untraceable",
                ) from error
            if isinstance(error, UnfitError) and not wants_values(error):
                raise CaptureError(
                    f"{type(model).__name__} does not take an input of shape {call}: {error}{source_line(error)}. Pass "
                    "example_inputs (--input) of a shape and dtype that it accepts",
                    code="wrong-input",
                ) from error
            raise CaptureError(
                f"cannot trace {type(model).__name__}: {one_line(error)}{source_line(error)}{advice(error)}",
                code="untraceable",
            ) from error
        constants: dict[str, Any] = {name: value for name, value in vars(model).items() if name not in known}
        if not model.training:
            check_repeatable(graph, type(model).__name__, drew=random_states() != before)
    constants = {name: value for name, value in constants.items() if name.startswith("_tensor_constant")}
    return graph, constants, tracer


def _is_recursion(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, RecursionError):
        error = error.__cause__
    return error is not None


def _compare_modes(model: nn.Module, graph: fx.Graph, call: CallSpec, gradients: bool) -> None:
    """Let what can follow the mode at run time do so, and warn about the rest."""
    mode, other_mode = ("train", "eval") if model.training else ("eval", "train")
    try:
        theirs = _traced_somehow(copied(model).train(not model.training), call, gradients)
    except Exception as error:  # also what cannot be copied
        found = f"cannot be traced in {other_mode} mode ({error})"
    else:
        different = follow_mode(graph, theirs, model.training)
        if not different:
            return
        where = ", ".join(repr(path) for path in different[:3] if path) or "its forward"
        more = f" and {len(different) - 3} more" if len(different) > 3 else ""
        found = f"does something else in {other_mode} than in {mode} mode, in {where}{more}"
    warnings.warn(
        f"{type(model).__name__} {found}; captured is what it does in {mode} mode, and stays so: call .eval() or "
        ".train() before, for the mode that it will run in",
        CaptureWarning,
        stacklevel=4,
    )


def _traced_somehow(model: nn.Module, call: CallSpec, gradients: bool) -> fx.Graph:
    """The graph for this call, or for twice the batch: batch normalization in training wants more than one value."""
    try:
        return _traced(model, call, gradients)[0]
    except CaptureError:
        twice = call.map(lambda spec: replace(spec, shape=(2 * spec.shape[0], *spec.shape[1:])) if spec.shape else spec)
        return _traced(model, twice, gradients)[0]
