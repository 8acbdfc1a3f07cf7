"""A written file against the network that it was made from."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..base.errors import ExportError
from ..base.precision import Precision
from ..graph.call_spec import CallSpec, specs, tensor_leaves
from ..numerics.running import rounding_of, run
from .base import Format, reason, tensors
from .torch_export import calm

_SLACK = 10
"""Error, in what rounding may come to in a network, up to which a file counts as the same network"""

_LESS: dict[Precision, float] = {"fp16": 0.1, "bf16": 0.1, "int8": 0.25}
"""Largest difference ÷ largest value up to which a file in a precision below the network's is worth shipping"""


@dataclass(frozen=True)
class Comparison:
    """A file's outputs against the bundle's, for one input.

    Attributes:
        inputs: shapes of the input.
        relative_error: largest absolute difference ÷ largest absolute value of the bundle's outputs.
    """

    inputs: str
    relative_error: float


class DifferenceError(ExportError):
    """A file does not compute what the network does; `stage` is where: `load`, `run`, `shape` or `value`."""

    def __init__(self, message: str, stage: str):
        codes = {"load": "unreadable", "run": "wrong-input", "shape": "wrong-output", "value": "computes-else"}
        super().__init__(message, code=codes[stage])
        self.stage = stage


def compare(
    kind: Format,
    file: Path,
    module: nn.Module,
    calls: Sequence[CallSpec],
    *,
    together: bool = True,
    precision: Precision = "fp32",
) -> tuple[Comparison, ...]:
    """The file against the network.

    `together`: a difference is measured by the largest value of all outputs, not of each one. `precision`: the file's.

    Raises:
        DifferenceError: they do not compute the same.
    """
    try:
        with calm():
            runner = kind.open(file)
    except Exception as error:
        raise DifferenceError(
            f"the {kind.title} file was written, but cannot be loaded: {reason(error)}", "load"
        ) from error
    found: list[Comparison] = []
    for call in calls:
        expected, inputs = list(tensor_leaves(run(module, call))), str(specs(call))
        try:
            got = list(runner([x.clone() for x in tensors(call)]))
        except Exception as error:
            raise DifferenceError(
                f"the {kind.title} file was written, but cannot be run on {inputs}: {reason(error)}", "run"
            ) from error
        if [x.shape for x in got] != [x.shape for x in expected]:
            raise DifferenceError(
                f"on {inputs} the {kind.title} file returns {[tuple(x.shape) for x in got]}, and the network "
                f"{[tuple(x.shape) for x in expected]}: {_elsewhere(len(found))}",
                "shape",
            )
        pairs = [(got, expected)] if together else [([a], [b]) for a, b in zip(got, expected, strict=True)]
        off, allowed = max(itertools.starmap(_relative, pairs)), _SLACK * max(map(_rounding, expected), default=0.0)
        allowed = _LESS.get(precision, allowed)
        if not off <= allowed:
            what = "rounding" if precision == "fp32" else f"{precision} may cost"
            raise DifferenceError(
                f"on {inputs} the {kind.title} file is {off:.2g} off the network, more than {what} "
                f"({allowed:.2g}): {_elsewhere(len(found))}",
                "value",
            )
        found.append(Comparison(inputs, off))
    return tuple(found)


def _elsewhere(compared: int) -> str:
    if compared:
        return "it holds for the example's size only, so export without --dynamic"
    return "nothing was written; export to another format"


def _relative(got: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Largest difference ÷ largest value, of all outputs together; NaN where only one of them is finite."""
    pairs = [(a.detach().to(torch.float64), b.detach().to(torch.float64)) for a, b in zip(got, expected, strict=True)]
    largest = max((float(b.abs().max()) for _, b in pairs if b.numel()), default=0.0)
    difference = max((float((a - b).abs().max()) for a, b in pairs if b.numel()), default=0.0)
    return difference / largest if largest else difference


def _rounding(tensor: Tensor) -> float:
    return rounding_of(tensor.dtype) if tensor.is_floating_point() else 0.0
