"""Another input size for a network: what is right at one size only is not right."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..analysis.anatomy import Anatomy
from ..analysis.network import Network
from ..base.errors import one_line
from ..graph.call_spec import CallSpec, map_tree, tensor_leaves
from .running import run, values


def total_stride(anatomy: Anatomy) -> int:
    """How much smaller the deepest level is than the image, rounded up to a power of 2."""
    return int(2 ** math.ceil(max(0.0, anatomy.depth)))


def other_sizes(call: CallSpec, stride: int) -> Iterator[CallSpec]:
    """The same call at other sizes, likely ones first, each of another aspect; none without an image among the inputs.

    Images are cropped, or continued by their own repetition. Their sides stay multiples of `stride`, since many
    networks take no others, and what is an image at 1/2, 1/4, ... of the largest stays so.
    """
    sides = [tuple(t.shape[-2:]) for t in _images(call)]
    if not sides:
        return
    height, width = max(sides)
    for new_height, new_width in _candidates(height, width, stride):

        def resized(tensor: Tensor, new: tuple[int, int] = (new_height, new_width)) -> Tensor:
            if tensor.dim() != _rank(call):
                return tensor
            factors = {side / own for side, own in zip((height, width), tensor.shape[-2:], strict=True)}
            factor = factors.pop()
            if factors or any(side % factor for side in new):
                return tensor
            rows, columns = (
                torch.arange(int(side / factor), device=tensor.device) % own
                for side, own in zip(new, tensor.shape[-2:], strict=True)
            )
            return tensor[..., rows, :][..., columns]

        args, kwargs = map_tree((call.args, dict(call.kwargs)), Tensor, resized)
        yield CallSpec(args, kwargs)


def another_size(
    network: Network, call: CallSpec, outputs: Callable[[CallSpec], Tensor] | None = None
) -> tuple[CallSpec | None, Tensor | None, str]:
    """The first other size that a network takes, with what it returns there; or None, and why it takes none.

    `outputs` runs it otherwise than it is.
    """
    reason = "no input is an image"
    for other in other_sizes(call, total_stride(network.anatomy)):
        try:
            if outputs is not None:
                return other, outputs(other), ""
            return other, values(network.program.name, run(network.program.graph_module, other)), ""
        except Exception as error:  # whatever a network raises at a size that it does not take
            reason = one_line(error)
    return None, None, reason


def _candidates(height: int, width: int, stride: int) -> list[tuple[int, int]]:
    """Heights and widths, smaller ones first; of the same aspect only at the very end."""

    def multiple(length: float) -> int:
        return max(1, round(length / stride)) * stride

    found = [
        (multiple(height / 2), multiple(width * 3 / 4)),
        (multiple(height / 2), width),
        (height // 2, width * 3 // 4),
        (height + stride, width + 2 * stride),
        (2 * height, width),
        (height // 2, width // 2),
    ]
    smaller = [size for size in found if size[0] <= height and size[1] <= width]
    ordered = dict.fromkeys([*smaller, *found])
    return [size for size in ordered if size != (height, width) and min(size) > 0]


def _images(call: CallSpec) -> list[Tensor]:
    return [t for t in _tensors(call) if t.dim() == _rank(call)]


def _rank(call: CallSpec) -> int:
    """Of images: 4, or 3 where no input has 4 dimensions."""
    return 4 if any(t.dim() == 4 for t in _tensors(call)) else 3


def _tensors(call: CallSpec) -> list[Tensor]:
    return list(tensor_leaves([*call.args, *call.kwargs.values()]))
