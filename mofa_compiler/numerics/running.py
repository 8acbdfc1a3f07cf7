"""One network run on one input, always under the same conditions."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..base.errors import VerificationError
from ..base.torch_state import kept_buffers, kept_modes, own_randomness
from ..graph.call_spec import CallSpec, map_tree, tensor_leaves
from ..graph.program import Program


def rounding(program: Program) -> float:
    """Relative error that rounding may come to in a network of this precision."""
    dtypes = [tensor.dtype for tensor in program.state().values() if tensor.is_floating_point()]
    return max(map(rounding_of, dtypes), default=rounding_of(torch.float32))


def rounding_of(dtype: torch.dtype) -> float:
    """Relative error that rounding may come to in a network that computes in `dtype`: 200 epsilons, at most 0.1."""
    return min(0.1, 200 * torch.finfo(dtype).eps)


def run(module: nn.Module, call: CallSpec) -> Any:
    """What a network returns in eval mode, without gradients, from the same seed and the same buffers every time."""
    # Captured in train mode, it may draw numbers.
    with evaluating(module), own_randomness(seed=0), kept_buffers(module), torch.no_grad():
        args, kwargs = copy.deepcopy((call.args, dict(call.kwargs)))  # some networks write into their input
        return module(*args, **kwargs)


def run_saved(module: nn.Module, call: CallSpec) -> Any:
    """What a saved network returns for a call of the original's, in the precision that it was converted to since."""
    precisions = {tensor.dtype for tensor in module.state_dict().values() if tensor.is_floating_point()}
    if len(precisions) != 1:
        return run(module, call)
    precision = precisions.pop()
    args, kwargs = map_tree(
        (call.args, dict(call.kwargs)), Tensor, lambda t: t.to(precision) if t.is_floating_point() else t
    )
    return run(module, CallSpec(args, kwargs))


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode, and afterwards every module's own mode again."""
    with kept_modes(module):
        module.eval()
        yield


def values(name: str, output: Any) -> Tensor:
    """All tensors that network `name` returned, flattened into one.

    Raises:
        VerificationError: there are none.
    """
    leaves = [leaf.detach() for leaf in tensor_leaves(output)]
    if not leaves:
        raise VerificationError(
            f"{name} returns no tensor ({type(output).__name__}): nothing to compare", code="wrong-output"
        )
    return torch.cat([(torch.view_as_real(leaf) if leaf.is_complex() else leaf).flatten() for leaf in leaves])


@dataclass
class Basis:
    """The inputs that figures were measured on, as they come in; as text, what to call them.

    `name` is what to call one of them, and in parentheses where they come from.
    """

    name: str
    calls: int = 0
    samples: int = 0
    whole: str = ""
    shapes: set[str] = field(default_factory=set)

    def add(self, call: CallSpec) -> None:
        """Count one call's inputs."""
        shapes = [tuple(leaf.shape) for leaf in tensor_leaves([*call.args, *call.kwargs.values()])]
        self.calls += 1
        self.samples += shapes[0][0] if shapes and shapes[0] else 1
        self.whole = _joined(shapes)
        self.shapes.add(_joined([shape[1:] for shape in shapes]))

    def __str__(self) -> str:
        if self.calls == 1:
            return f"{self.name} {self.whole}"
        sizes = next(iter(self.shapes)) if len(self.shapes) == 1 else f"{len(self.shapes)} sizes"
        noun, source = self.name.split(" (", 1) if " (" in self.name else (self.name, "")
        return f"{self.samples} {noun}s of {sizes} in {self.calls} batches{f' ({source}' if source else ''}"


def _joined(shapes: list[tuple[int, ...]]) -> str:
    return ", ".join("x".join(map(str, shape)) or "scalar" for shape in shapes)
