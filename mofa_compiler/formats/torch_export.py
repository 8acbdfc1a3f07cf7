"""torch.export, with the sizes that may differ, and exporters kept from talking about themselves."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.fx.experimental._config
from torch import Tensor, nn
from torch.export import ExportedProgram


@contextlib.contextmanager
def calm() -> Iterator[None]:
    """Without Python's warnings, log lines and prints. What C++ writes past Python is not held back."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def trace(
    module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None, dynamic_shapes: Any = None
) -> ExportedProgram:
    """A network, in eval mode, as torch.export traces it. Raises whatever that raises."""
    with calm(), torch.no_grad():
        copied = copy.deepcopy(module).eval()
        return torch.export.export(copied, args, dict(kwargs or {}), dynamic_shapes=dynamic_shapes, strict=False)


def trace_together(modules: Sequence[nn.Module], inputs: Sequence[Sequence[Tensor]]) -> ExportedProgram:
    """Networks that have nothing to do with one another as a single program, each with inputs and outputs of its own.

    Exporting has a price for every program, whatever its size. Raises whatever `torch.export` raises.
    """
    apart = tuple(tuple(x.clone() for x in given) for given in inputs)  # one tensor in two places would be one input
    return trace(_Together(modules), apart)


class _Together(nn.Module):
    def __init__(self, modules: Sequence[nn.Module]):
        super().__init__()
        self.parts = nn.ModuleList(modules)

    def forward(self, *inputs: tuple[Tensor, ...]) -> tuple[Any, ...]:
        return tuple(part(*given) for part, given in zip(self.parts, inputs, strict=True))


def returned_by_each(program: ExportedProgram) -> list[int]:
    """How many tensors each of the networks of `trace_together` returns."""
    return [spec.num_leaves for spec in program.call_spec.out_spec.children()]


@contextmanager
def any_size() -> Iterator[None]:
    """Do not take the example's sizes for what others are where torch asks itself only how a tensor lies in memory.

    Without that, a crop that takes nothing off the example is a contiguous tensor for ever, and files of networks that
    pad and crop images hold for some sizes only. Older versions of torch do not know it, and trace as they do.
    """
    config = torch.fx.experimental._config
    if not hasattr(config, "backed_size_oblivious"):
        yield
        return
    with config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
        yield


def bounds(program: ExportedProgram) -> list[tuple[int | tuple[int, int | None], ...]]:
    """Sizes of all tensors that a program takes: numbers, or a lower and an upper bound (None without one)."""
    names = program.graph_signature.user_inputs
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    tensors = [values[name] for name in names if isinstance(name, str) and isinstance(values.get(name), Tensor)]
    return [tuple(_bounds(program, size) for size in tensor.shape) for tensor in tensors]


def _bounds(program: ExportedProgram, size: Any) -> int | tuple[int, int | None]:
    if isinstance(size, int):
        return size
    expression = size.node.expr
    ranges = {symbol: program.range_constraints[symbol] for symbol in expression.free_symbols}
    low = expression.subs({symbol: found.lower for symbol, found in ranges.items()})
    high = expression.subs({symbol: found.upper for symbol, found in ranges.items()})
    return max(1, int(low)), int(high) if getattr(high, "is_Integer", False) else None
