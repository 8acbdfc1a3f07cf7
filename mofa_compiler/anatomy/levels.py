"""The level of every node: log2 of how much smaller than the input image its value is.

Where an operation says by how much it resamples (a stride, a scale factor) it is believed: sizes alone mislead, for
odd inputs, padding inside and convolutions without padding. Otherwise the size decides, measured against the frame
that the value lives in: the size that it would have at full resolution.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, fx, nn
from torch.nn.modules.padding import _CircularPadNd, _ConstantPadNd, _ReflectionPadNd, _ReplicationPadNd

from ..errors import AnatomyError
from ..inputs import tensor_leaves
from ..program import Program
from .description import Level
from .values import DataFlow, operation

CONCATENATIONS = frozenset({"cat", "concat", "concatenate"})

_PADDING = (_CircularPadNd, _ConstantPadNd, _ReflectionPadNd, _ReplicationPadNd)
_POOLINGS = (nn.MaxPool2d, nn.AvgPool2d, nn.LPPool2d)
_POOLING_FUNCTIONS = frozenset({"max_pool2d", "max_pool2d_with_indices", "avg_pool2d"})
_Size = tuple[int, int]


def input_image(flow: DataFlow) -> fx.Node:
    """The input that the resolution is measured from: the largest image batch.

    Raises:
        AnatomyError: no input is an image batch.
    """
    inputs: list[fx.Node] = []
    for node in flow.nodes:
        source = node.args[0] if node.target is operator.getitem else None
        held = flow.value[source] if isinstance(source, fx.Node) and source in inputs else None
        if node.op == "placeholder" or isinstance(held, (list, tuple, dict)):
            inputs.append(node)  # an image may also lie in a list or dict
    images = [node for node in inputs if getattr(flow.value[node], "ndim", 0) == 4]
    if not images:
        given = [tensor for node in inputs if node.op == "placeholder" for tensor in tensor_leaves(flow.value[node])]
        shapes = [str(tuple(tensor.shape)) for tensor in given]
        raise AnatomyError(
            "no input is an image batch (N, C, H, W), so there is no resolution to infer stages from: the inputs are "
            f"{', '.join(shapes) or 'no tensors'}. Capture the part of the model that works on images, with an "
            "example of such a shape"
        )
    return max(images, key=lambda n: flow.value[n].shape[-1] * flow.value[n].shape[-2])


def find_levels(flow: DataFlow, program: Program, image: fx.Node) -> dict[fx.Node, Level]:
    """The level of each node, None where its value is no image."""
    return _Levels(flow, program, image).all()


@dataclass(frozen=True)
class _Place:
    """Where a value stands: its level if it is an image, and the image that it is one of or was last.

    Attributes:
        grid: height and width of that image.
        frame: its size at full resolution.
        channels_last: whether the image is (N, H, W, C).
    """

    level: Level
    grid: _Size
    frame: tuple[float, float]
    channels_last: bool = False


class _Levels:
    def __init__(self, flow: DataFlow, program: Program, image: fx.Node):
        self.flow = flow
        self.program = program
        self.image = image
        shape = flow.value[image].shape
        self.batch = shape[0]
        channels_last = shape[-1] <= 4 < shape[1]
        grid = tuple(shape[1:3] if channels_last else shape[-2:])
        self.full = _Place(0, grid, grid, channels_last)
        self.places: dict[fx.Node, _Place] = {}

    def all(self) -> dict[fx.Node, Level]:
        for node in self.flow.nodes:
            place = self._place(node)
            if place is not None:
                self.places[node] = place
        return {node: self.places[node].level if node in self.places else None for node in self.flow.nodes}

    def _place(self, node: fx.Node) -> _Place | None:
        if node is self.image:
            return self.full
        sources = [self.places[source] for source in self.flow.sources[node] if source in self.places]
        if not sources:
            return self._by_size(node, self.full) if node.op == "placeholder" else None
        known = [place for place in sources if place.level is not None]
        if known:
            step = self._log2_step(node, known[0])
            before = replace(known[0], channels_last=False) if step else known[0]  # what resamples takes (N, C, H, W)
            after = self._image_size(node, before)
            if after is not None and step is not None:
                return _moved(before, step, after)
            if after is not None and after != before.grid and after == before.grid[::-1]:
                return _moved(before, 0, after)  # turned by a quarter
        return self._by_size(node, max(known, key=lambda place: -(place.level or 0)) if known else sources[0])

    def _image_size(self, node: fx.Node, before: _Place) -> _Size | None:
        """Height and width of a value in the layout of the image before it; None where it is no image or one pixel."""
        first = next(tensor_leaves(self.flow.value[node]), None)
        if first is None or first.ndim != 4 or first.shape[0] != self.batch:
            return None
        height, width = first.shape[1:3] if before.channels_last else first.shape[-2:]
        return (height, width) if height > 1 and width > 1 else None

    def _by_size(self, node: fx.Node, before: _Place) -> _Place:
        for tensor in tensor_leaves(self.flow.value[node]):
            if tensor.ndim >= 3 and tensor.shape[0] == self.batch:  # else windows folded into the batch
                place = _fitting(tensor, before)
                if place is not None:
                    return place
        return _Place(None, before.grid, before.frame, before.channels_last)

    def _log2_step(self, node: fx.Node, before: _Place) -> float | None:
        """How many levels a node goes down by its own account; 0 if it only crops, pads or joins side by side."""
        if node.op == "call_module":
            return _step_of_module(self.program.modules[str(node.target)])
        name = operation(node)
        if name in CONCATENATIONS or name in ("chunk", "split", "tensor_split"):
            joined = _argument(node, 1 if name in CONCATENATIONS else 2, "dim", 0)
            return 0 if joined in ((1, 2, -2, -3) if before.channels_last else (2, 3, -1, -2)) else None
        if name == "getitem" and isinstance(node.args[1], tuple):
            crops = all(not isinstance(index, slice) or index.step in (None, 1) for index in node.args[1])
            return 0 if crops else None
        return 0 if name in ("pad", "narrow") else _step_of_function(name, node)


def _moved(before: _Place, step: float, after: _Size) -> _Place:
    level = _rounded((before.level or 0) + step)
    return _Place(level, after, (after[0] * 2**level, after[1] * 2**level), before.channels_last)


def _rounded(level: float) -> float:
    return round(level) if abs(level - round(level)) < 0.3 else round(level, 1)


def _fitting(tensor: Tensor, before: _Place) -> _Place | None:
    """The place of a tensor if it reads as an image or as tokens in the frame of the one before."""
    shape = tensor.shape
    if tensor.ndim == 4:
        last, first = ((shape[1], shape[2]), True), ((shape[2], shape[3]), False)
        also = [last] if last[0] == before.grid else []
        for grid, channels_last in [last, first] if before.channels_last else [first, *also]:
            level = _level_of(grid, before.frame)
            if level is not None:
                return _Place(level, grid, before.frame, channels_last)
    if tensor.ndim == 3:
        pixels = before.grid[0] * before.grid[1]
        if before.level is not None and (shape[1] in (pixels, pixels + 1) or shape[2] == pixels):  # + a class token
            return before
        level = math.log2(before.frame[0] * before.frame[1] / shape[1]) / 2 if shape[1] > 1 else 0.5
        if abs(level - round(level)) < 1e-6:
            grid = (round(before.frame[0] / 2**level), round(before.frame[1] / 2**level))
            return _Place(round(level), grid, before.frame, before.channels_last)
    return None


def _level_of(grid: _Size, frame: tuple[float, float]) -> Level:
    if min(grid) <= 1:
        return None
    vertical, horizontal = (math.log2(full / size) for full, size in zip(frame, grid, strict=True))
    return _rounded((vertical + horizontal) / 2) if abs(vertical - horizontal) < 0.1 else None


def _step_of_module(module: nn.Module) -> float | None:
    if isinstance(module, _PADDING):
        return 0
    if isinstance(module, nn.Conv2d):
        return _log2(module.stride)
    if isinstance(module, nn.ConvTranspose2d):
        return _negative(_log2(module.stride))
    if isinstance(module, _POOLINGS):
        return _log2(module.kernel_size if module.stride is None else module.stride)
    if isinstance(module, nn.PixelUnshuffle):
        return _log2(module.downscale_factor)
    if isinstance(module, nn.PixelShuffle):
        return _negative(_log2(module.upscale_factor))
    if isinstance(module, nn.Upsample) and module.scale_factor is not None:
        return _negative(_log2(module.scale_factor))
    return None


def _step_of_function(name: str, node: fx.Node) -> float | None:
    if name == "conv2d":
        return _log2(_argument(node, 3, "stride", 1))
    if name == "conv_transpose2d":
        return _negative(_log2(_argument(node, 3, "stride", 1)))
    if name in _POOLING_FUNCTIONS:
        kernel_size = _argument(node, 1, "kernel_size", None)
        return _log2(_argument(node, 2, "stride", None) or kernel_size)
    if name == "pixel_unshuffle":
        return _log2(_argument(node, 1, "downscale_factor", None))
    if name == "pixel_shuffle":
        return _negative(_log2(_argument(node, 1, "upscale_factor", None)))
    if name in ("interpolate", "upsample"):
        return _negative(_log2(_argument(node, 2, "scale_factor", None)))
    return None


def _argument(node: fx.Node, place: int, name: str, default: Any) -> Any:
    return node.kwargs.get(name, node.args[place] if len(node.args) > place else default)


def _log2(factors: Any) -> float | None:
    """log2 of a factor, the mean of it for one factor per dimension; None where it is not known."""
    each: Sequence[Any] = factors if isinstance(factors, (list, tuple)) else (factors,)
    if not each or any(not isinstance(factor, (int, float)) or factor <= 0 for factor in each):
        return None
    return sum(math.log2(factor) for factor in each) / len(each)


def _negative(step: float | None) -> float | None:
    return None if step is None else -step
