"""`capture`: torch.fx tracing with values, computed on meta tensors.

While a model is traced, torch.fx patches `nn.Module.__call__` and `__getattr__`, and `patches` a few names more. Calls
from other threads pass through, a lock keeps two traces apart, and all is put back afterwards, also after an error.
"""

from __future__ import annotations

import threading
import warnings
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..codegen import naming
from ..errors import CaptureError, one_line, source_line
from ..evaluation import wants_values
from ..inputs import CallSpec, ExampleInputs, bound_call, example_call, specs
from ..program import Program
from .lean import lean
from .modes import CaptureWarning, asks_for_mode, follow_mode
from .patches import patched
from .randomness import check_repeatable
from .state import copied, drop_unread, preserved, random_states, split_state
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


def capture(model: nn.Module, example_inputs: ExampleInputs = None) -> Program:
    """Trace `model` into a `Program` that shares its weights.

    Args:
        model: any module that torch.fx can trace; it is not modified. It is traced in the mode that it is in; a
            `CaptureWarning` says where the other mode would do something else.
        example_inputs: a tensor, a sequence of positional arguments, or a mapping of keyword arguments; arguments are
            tensors, numbers, text, None, and lists, tuples and dicts of them. Of tensors, on any device, only shapes
            and dtypes are read, and nothing but shapes is computed. The size is not baked in, but for decisions that
            forward makes on it, which raise at a size where they would come out otherwise; so do text, bools and None
            if they are others. Parameters of forward beyond the example stay at their defaults. Without an example,
            one of (1, C, 256, 256) for the first convolution.

    Raises:
        CaptureError: the model cannot be traced, makes weights in forward, computes something else at every call, or
            does not take these inputs.
    """
    if type(model).__name__ == "OptimizedModule" and isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
        model = inner  # torch.compile's wrapper
    if not isinstance(model, nn.Module):
        raise CaptureError(f"expected an nn.Module, got a {type(model).__name__}")
    if _TRACING.owner == threading.get_ident():
        raise CaptureError("capture() is called by a forward that is being captured: capture one of the two alone")
    call = specs(example_call(model, example_inputs))
    if model._forward_hooks or model._forward_pre_hooks:
        raise CaptureError(
            f"{type(model).__name__} itself has forward hooks, which tracing does not run: remove them, or capture "
            "torch.nn.Sequential(model)"
        )
    with _TRACING, lean():
        graph, constants, opaque = _traced(model, call)
        modules, tensors, containers, transient = split_state(model, graph)
        if asks_for_mode(model):
            _compare_modes(model, graph, call)
    tensors |= constants
    drop_unread(graph)
    return Program(
        name=type(model).__name__,
        graph=graph,
        modules=modules,
        tensors=tensors,
        containers=containers,
        call=call,
        opaque=opaque,
        transient=frozenset(transient | constants.keys()),  # no state_dict holds what tracing wrote into the graph
        training=model.training,
    )


def _traced(model: nn.Module, call: CallSpec) -> tuple[fx.Graph, dict[str, Tensor], dict[str, str]]:
    """The graph, the constants that it refers to, and the opaque parts with their causes."""
    tracer = Tracer(model, bound_call(model, call))
    with preserved(model), patched(tracer, model), torch.enable_grad():
        before, known = random_states(), set(vars(model))
        try:
            graph = naming(tracer.trace(model))
        except CaptureError:
            raise
        except Exception as error:
            if isinstance(error, UnfitError) and not wants_values(error):
                raise CaptureError(
                    f"{type(model).__name__} does not take an input of shape {call}: {error}. Pass example_inputs "
                    "(--input) of a shape and dtype that it accepts"
                ) from error
            raise CaptureError(
                f"cannot trace {type(model).__name__}: {one_line(error)}{source_line(error)}. Control flow on the "
                "values of tensors stops the tracer: move it out of forward, or capture the part without it"
            ) from error
        constants: dict[str, Any] = {name: value for name, value in vars(model).items() if name not in known}
        if not model.training:
            check_repeatable(graph, type(model).__name__, drew=random_states() != before)
    constants = {name: value for name, value in constants.items() if name.startswith("_tensor_constant")}
    return graph, constants, tracer.opaque


def _compare_modes(model: nn.Module, graph: fx.Graph, call: CallSpec) -> None:
    """Let what can follow the mode at run time do so, and warn about the rest."""
    mode, other_mode = ("train", "eval") if model.training else ("eval", "train")
    try:
        theirs = _traced_somehow(copied(model).train(not model.training), call)
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


def _traced_somehow(model: nn.Module, call: CallSpec) -> fx.Graph:
    """The graph for this call, or for twice the batch: batch normalization in training wants more than one value."""
    try:
        return _traced(model, call)[0]
    except CaptureError:
        twice = call.map(lambda spec: replace(spec, shape=(2 * spec.shape[0], *spec.shape[1:])) if spec.shape else spec)
        return _traced(model, twice)[0]
