"""The level of every node: log2 of how much smaller than the input image its value is.

Where an operation says by how much it resamples (a stride, a scale factor) it is believed: sizes alone mislead, for
odd inputs, padding inside and convolutions without padding. Otherwise the size decides: what is as large as an image
that it was made smaller from is back on that image's level (a side branch that shrinks and comes back); else it is
measured against the frame that the value lives in, the size that it would have at full resolution. Height and width are
followed apart, and the level is that of the axis that has shrunk more (in speech, time is not resampled).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, fx, nn
from torch.nn.modules.padding import _CircularPadNd, _ConstantPadNd, _ReflectionPadNd, _ReplicationPadNd

from ...base.errors import AnatomyError
from ...graph.call_spec import tensor_leaves
from ...graph.program import Program
from .types import Level
from .values import DataFlow, operation

SAME = 0.4
"""Levels that differ by no more than this count as the same: odd sizes and scale factors like 1.3."""
CONCATENATIONS = frozenset({"cat", "concat", "concatenate"})

_PADDING = (_CircularPadNd, _ConstantPadNd, _ReflectionPadNd, _ReplicationPadNd)
_POOLINGS = (nn.MaxPool2d, nn.AvgPool2d, nn.LPPool2d)
_POOLING_FUNCTIONS = frozenset({"max_pool2d", "max_pool2d_with_indices", "avg_pool2d"})
_RESAMPLING = (nn.Upsample, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
_RESAMPLING_FUNCTIONS = frozenset({"interpolate", "upsample", "adaptive_avg_pool2d", "adaptive_max_pool2d"})
_REARRANGING = frozenset(
    {"view", "reshape", "transpose", "permute", "contiguous", "unflatten", "matmul", "scaled_dot_product_attention"}
)
_Size = tuple[int, int]
_Levels2d = tuple[float, float]


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
            "example of such a shape",
            code="wrong-input",
        )
    return max(images, key=lambda n: flow.value[n].shape[-1] * flow.value[n].shape[-2])


def find_levels(flow: DataFlow, program: Program, image: fx.Node) -> dict[fx.Node, Level]:
    """The level of each node, None where its value is no image."""
    return _Levels(flow, program, image).all()


@dataclass(frozen=True)
class _Place:
    """Where a value stands: an image, or something else with the image that it was last.

    Attributes:
        levels: along the height and the width.
        grid: height and width.
        frame: its size at full resolution.
        channels_last: whether it is (N, H, W, C).
        is_image: whether the value itself is that image.
        larger: the image that it was made smaller from; of those, each is shallower than the one before.
    """

    levels: _Levels2d
    grid: _Size
    frame: tuple[float, float]
    channels_last: bool = False
    is_image: bool = True
    larger: _Place | None = None

    @property
    def depth(self) -> float:
        """The level along the axis that has shrunk more; where none has, along the one that has grown more."""
        return max(self.levels) if max(self.levels) > 0 else min(self.levels)

    @property
    def level(self) -> Level:
        return self.depth if self.is_image else None

    @property
    def stretch(self) -> float:
        """By how many levels its height has shrunk more than its width."""
        return self.levels[0] - self.levels[1]

    def same_size(self) -> Iterator[_Place]:
        """Itself and the larger images that it comes from."""
        place: _Place | None = self
        while place is not None:
            yield place
            place = place.larger

    def resized(self, levels: _Levels2d, grid: _Size, frame: tuple[float, float], channels_last: bool) -> _Place:
        """The place of an image that was made larger or smaller from this one."""
        new = _Place(levels, grid, frame, channels_last)
        return replace(new, larger=next((old for old in self.same_size() if old.depth < new.depth - SAME), None))


class _Levels:
    def __init__(self, flow: DataFlow, program: Program, image: fx.Node):
        self.flow = flow
        self.program = program
        self.image = image
        shape = flow.value[image].shape
        self.batch = shape[0]
        channels_last = shape[-1] <= 4 < shape[1]
        grid = tuple(shape[1:3] if channels_last else shape[-2:])
        self.full = _Place((0, 0), grid, grid, channels_last)
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
        known = [place for place in sources if place.is_image]
        if known:
            step = self._log2_step(node, known[0])
            before = replace(known[0], channels_last=False) if step and any(step) else known[0]  # it takes (N, C, H, W)
            after = self._image_size(node, before)
            if after is not None and step is not None:
                return _moved(before, step, after)
        return self._by_size(node, min(known, key=lambda place: place.depth) if known else sources[0])

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
                rearranged = operation(node) in _REARRANGING
                shuffled = operation(node) in ("view", "reshape") and not before.is_image  # pixels, by way of more axes
                place = _fitting(tensor, before, shuffled or self._resamples(node), rearranged)
                if place is not None:
                    return place
        return replace(before, is_image=False)

    def _resamples(self, node: fx.Node) -> bool:
        """Whether a node makes an image of an image, of whatever size."""
        if node.op == "call_module":
            return isinstance(self.program.modules[str(node.target)], _RESAMPLING)
        return operation(node) in _RESAMPLING_FUNCTIONS

    def _log2_step(self, node: fx.Node, before: _Place) -> _Levels2d | None:
        """How many levels a node goes down by its own account; 0 if it only crops, pads or joins side by side."""
        if node.op == "call_module":
            return _step_of_module(self.program.modules[str(node.target)])
        name = operation(node)
        if name in CONCATENATIONS or name in ("chunk", "split", "tensor_split"):
            joined = _argument(node, 1 if name in CONCATENATIONS else 2, "dim", 0)
            return (0, 0) if joined in ((1, 2, -2, -3) if before.channels_last else (2, 3, -1, -2)) else None
        if name == "getitem" and isinstance(node.args[1], tuple):
            crops = all(not isinstance(index, slice) or index.step in (None, 1) for index in node.args[1])
            return (0, 0) if crops else None
        return (0, 0) if name in ("pad", "narrow") else _step_of_function(name, node)


def _moved(before: _Place, step: _Levels2d, after: _Size) -> _Place:
    levels = (_rounded(before.levels[0] + step[0]), _rounded(before.levels[1] + step[1]))
    if step == (0, 0):
        return replace(before, grid=after, frame=_frame(after, levels))
    for place in before.same_size():
        if place.grid == after and place.levels == levels:  # back where it was
            return replace(place, channels_last=False, is_image=True)
    return before.resized(levels, after, _frame(after, levels), before.channels_last)


def _frame(grid: _Size, levels: _Levels2d) -> tuple[float, float]:
    return grid[0] * 2 ** levels[0], grid[1] * 2 ** levels[1]


def _rounded(level: float) -> float:
    return round(level) if abs(level - round(level)) < 0.3 else round(level, 1)


def _fitting(tensor: Tensor, before: _Place, resampled: bool, rearranged: bool) -> _Place | None:
    """The place of a tensor if it reads as an image or as tokens in the frame of the one before.

    What was resampled is an image also if it has changed along one axis only; what was only rearranged, with one
    dimension for all pixels, are tokens in several heads.
    """
    shape = tensor.shape
    if tensor.ndim == 4:
        in_heads = rearranged and before.is_image and before.grid[0] * before.grid[1] in shape[1:3]
        last, first = ((shape[1], shape[2]), True), ((shape[2], shape[3]), False)
        also = [last] if last[0] == before.grid else []
        for grid, channels_last in [last, first] if before.channels_last else [first, *also]:
            place = _as_before(grid, before) or (None if in_heads else _measured(grid, before, one_axis=resampled))
            if place is not None:
                return replace(place, channels_last=channels_last)
        return before if in_heads else None
    if tensor.ndim == 3:
        if (alone := _as_before((shape[1], shape[2]), before)) is not None:  # one channel, its dimension dropped
            return replace(alone, channels_last=False)
        for place in before.same_size() if before.is_image else ():
            pixels = place.grid[0] * place.grid[1]
            if shape[1] in (pixels, pixels + 1) or shape[2] == pixels:  # + a class token
                return place
        level = math.log2(before.frame[0] * before.frame[1] / shape[1]) / 2 if shape[1] > 1 else 0.5
        if abs(level - round(level)) < 1e-6:
            grid = (round(before.frame[0] / 2**level), round(before.frame[1] / 2**level))
            return before.resized((round(level), round(level)), grid, before.frame, before.channels_last)
    return None


def _as_before(grid: _Size, before: _Place) -> _Place | None:
    """The place of an image as large as one before it, or turned by a quarter; of one pixel, None."""
    if min(grid) <= 1:
        return None
    for place in before.same_size():
        if place.grid == grid:
            return replace(place, is_image=True)
    if grid != before.grid[::-1]:
        return None
    vertical, horizontal = before.levels
    return replace(before, levels=(horizontal, vertical), grid=grid, frame=before.frame[::-1], is_image=True)


def _measured(grid: _Size, before: _Place, *, one_axis: bool) -> _Place | None:
    """The place of an image of this size; None where it is too unlike the one before to be one (an attention map)."""
    if min(grid) <= 1:
        return None
    vertical, horizontal = (math.log2(full / size) for full, size in zip(before.frame, grid, strict=True))
    stretch = vertical - horizontal
    unlike = min(abs(stretch), abs(stretch - before.stretch)) >= 0.1
    if unlike and not (one_axis and (grid[0] == before.grid[0] or grid[1] == before.grid[1])):
        return None
    if not unlike and abs(stretch) < 0.1:
        vertical = horizontal = (vertical + horizontal) / 2
    return before.resized((_rounded(vertical), _rounded(horizontal)), grid, before.frame, before.channels_last)


def _step_of_module(module: nn.Module) -> _Levels2d | None:
    if isinstance(module, _PADDING):
        return 0, 0
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


def _step_of_function(name: str, node: fx.Node) -> _Levels2d | None:
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


def _log2(factors: Any) -> _Levels2d | None:
    """log2 of a factor, or of one for the height and one for the width; None where it is not known."""
    each: Sequence[Any] = factors if isinstance(factors, (list, tuple)) else (factors,)
    if len(each) not in (1, 2) or any(not isinstance(factor, (int, float)) or factor <= 0 for factor in each):
        return None
    return math.log2(each[0]), math.log2(each[-1])


def _negative(step: _Levels2d | None) -> _Levels2d | None:
    return None if step is None else (-step[0], -step[1])
