"""TorchScript: traced, frozen. PyTorch has deprecated it; libtorch programs and older phones still load it."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..base.errors import ExportError
from ..base.precision import Precision
from ..base.torch_state import patched_names
from ..graph.call_spec import CallSpec, bound_call, tensor_leaves
from .base import Format, Runner, Source, Use, Written


class TorchScript(Format):
    """`torch.jit.trace` on the example, then `torch.jit.freeze`."""

    name: ClassVar[str] = "torchscript"
    title: ClassVar[str] = "TorchScript"
    suffixes: ClassVar[tuple[str, ...]] = (".pt",)
    precisions: ClassVar[tuple[Precision, ...]] = ("fp32", "fp16", "bf16")
    traced: ClassVar[bool] = False

    def write(self, source: Source, file: Path) -> Written:
        args = positional(source)
        with warnings.catch_warnings(record=True) as caught, _plain_autograd(), torch.no_grad():
            warnings.simplefilter("always")
            module = copy.deepcopy(source.module).eval()  # in train mode it would not be frozen
            traced = torch.jit.trace(module, args, check_trace=False, strict=False)  # type: ignore[no-untyped-call]
            frozen = torch.jit.freeze(traced)
            torch.jit.save(frozen, file)
        kinds = [node.kind() for node in frozen.inlined_graph.nodes()]
        uses = [Use(kind.removeprefix("aten::")) for kind in kinds if kind.startswith("aten::")]
        return Written(uses, _fixed(caught))

    def open(self, file: Path) -> Runner:
        module = torch.jit.load(file)  # type: ignore[no-untyped-call]

        def run(inputs: Sequence[Tensor]) -> list[Tensor]:
            with torch.no_grad():
                return list(tensor_leaves(module(*inputs)))

        return run


def positional(source: Source) -> tuple[Any, ...]:
    """The example's arguments, all by position.

    Raises:
        ExportError: one can be passed by name only, or is no tensor.
    """
    bound = bound_call(source.module, CallSpec(source.call.args, source.call.kwargs))
    name = type(source.module).__name__
    if bound.kwargs:
        raise ExportError(
            f"{name} takes {', '.join(bound.kwargs)} by name only, which TorchScript's tracer does not: export to pt2",
            code="wrong-input",
        )
    for argument, value in bound.arguments.items():
        if not isinstance(value, Tensor) and not all(isinstance(one, Tensor) for one in value or [None]):
            raise ExportError(
                f"{name}'s argument {argument} is no tensor, as TorchScript's tracer needs: export to pt2",
                code="wrong-input",
            )
    return bound.args


def _fixed(caught: Sequence[warnings.WarningMessage]) -> list[str]:
    """What the tracer says that it took as a constant, though it depends on the input."""
    kind = torch.jit.TracerWarning  # type: ignore[attr-defined]
    places = {f"{one.filename}:{one.lineno}" for one in caught if issubclass(one.category, kind)}
    if not places:
        return []
    return [f"values that depend on the input were fixed as they are for the example, at {', '.join(sorted(places))}"]


class _Context:
    """Stands for the context of a custom autograd function in its forward pass; nothing that it is told is kept."""

    needs_input_grad = ()

    def save_for_backward(self, *tensors: Tensor) -> None: ...

    def mark_dirty(self, *tensors: Tensor) -> None: ...

    def mark_non_differentiable(self, *tensors: Tensor) -> None: ...

    def set_materialize_grads(self, value: bool) -> None: ...


def _plain_autograd() -> AbstractContextManager[None]:
    """Custom autograd functions as their forward pass: the tracer would record a call into Python, lost in a file."""

    def apply(cls: type[torch.autograd.Function], *args: Any) -> Any:
        if cls.setup_context is not torch.autograd.Function.setup_context:
            return cls.forward(*args)
        return cls.forward(_Context(), *args)

    return patched_names([(torch.autograd.Function, "apply", classmethod(apply))])
