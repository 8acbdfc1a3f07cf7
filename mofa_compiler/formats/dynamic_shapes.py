"""Dynamic sizes: which heights, widths and batches a network takes, and how torch.export is told."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn
from torch.export import Dim, ShapesCollection

from ..base.errors import ExportError, MofaError, source_line
from ..frontend import is_guards
from ..graph.call_spec import CallSpec, InputSpec
from ..numerics.running import run
from ..numerics.sizes import total_stride
from .base import describe, reason, tensors
from .observing import observe

_UNKNOWN_STRIDE = 32
_CLEAR = 256


@dataclass(frozen=True)
class Sizes:
    """Heights and widths, in pixels of the largest image among the inputs, that an exported file takes.

    Attributes:
        multiple: they are multiples of this.
        low: at least this.
        high: height and width at most this; None where there is no bound.
        batch: whether the number of images may differ, too.
    """

    multiple: int
    low: int
    high: tuple[int, int] | None = None
    batch: bool = False

    def __str__(self) -> str:
        parts = [f"H and W from {self.low}"]
        if self.high is not None:
            parts[0] += f" to {self.high[0]}x{self.high[1]}"
        if self.multiple > 1:
            parts.append(f"multiples of {self.multiple}")
        parts.append("any batch" if self.batch else "batch fixed")
        return ", ".join(parts)

    def up(self, length: int) -> int:
        """The smallest size that is taken and no smaller than this one."""
        return math.ceil(max(length, self.low) / self.multiple) * self.multiple


class Images:
    """The images among a call's inputs: tensors of 4 dimensions whose sides are 1, 1/2, 1/4, ... of the largest's.

    Raises:
        ExportError: there are none.
    """

    def __init__(self, call: CallSpec):
        self.call = call
        images = [spec for spec in call.tensors if len(spec.shape) == 4]
        if not images:
            raise ExportError(
                f"--dynamic is for images, and the network takes {call}: export without it", code="wrong-input"
            )
        self.batch = images[0].shape[0]
        self.height, self.width = max((spec.shape[2], spec.shape[3]) for spec in images)
        self.factor = max(self._factor(spec.shape) or 1 for spec in images)
        """How many times smaller the smallest image is"""

    def at(self, height: int, width: int, batch: int | None = None) -> CallSpec:
        """The same call with the largest image at this size."""
        return self.call.map(lambda spec: replace(spec, shape=self._resized(spec, height, width, batch)))

    def _resized(self, spec: InputSpec, height: int, width: int, batch: int | None) -> tuple[int, ...]:
        shape = list(spec.shape)
        if factor := self._factor(spec.shape):
            shape[2:] = [height // factor, width // factor]
        if batch is not None and shape and shape[0] == self.batch:
            shape[0] = batch
        return tuple(shape)

    def free_dimensions(self, example: CallSpec, module: nn.Module, sizes: Sizes) -> Any:
        """As `dimensions`, without names: torch.export keeps what it cannot prove of them as guards."""
        collection = ShapesCollection()  # type: ignore[no-untyped-call]
        highest = sizes.high or (None, None)
        for spec, tensor in zip(self.call.tensors, tensors(example), strict=True):
            dims: dict[int, Any] = {}
            if factor := self._factor(spec.shape):
                for place, high in zip((2, 3), highest, strict=True):
                    dims[place] = Dim.DYNAMIC(min=sizes.low // factor, max=high and high // factor)
            if sizes.batch and spec.shape and spec.shape[0] == self.batch:
                dims[0] = Dim.DYNAMIC
            if dims:
                collection[tensor] = dims
        return collection.dynamic_shapes(module, example.args, dict(example.kwargs))  # type: ignore[no-untyped-call]

    def dimensions(self, example: CallSpec, module: nn.Module, sizes: Sizes) -> Any:
        """What torch.export has to be told about `example`, tensors in place of this call's specs."""
        low, (high, wide) = math.ceil(sizes.low / sizes.multiple), sizes.high or (None, None)
        rows = Dim("height", min=low, max=high and high // sizes.multiple)
        columns = Dim("width", min=low, max=wide and wide // sizes.multiple)
        number = Dim("batch")
        collection = ShapesCollection()  # type: ignore[no-untyped-call]
        for spec, tensor in zip(self.call.tensors, tensors(example), strict=True):
            dims: dict[int, Any] = {}
            if factor := self._factor(spec.shape):
                times = sizes.multiple // factor
                dims = {2: times * rows if times > 1 else rows, 3: times * columns if times > 1 else columns}
            if sizes.batch and spec.shape and spec.shape[0] == self.batch:
                dims[0] = number
            if dims:
                collection[tensor] = dims
        return collection.dynamic_shapes(module, example.args, dict(example.kwargs))  # type: ignore[no-untyped-call]

    def _factor(self, shape: tuple[int, ...]) -> int | None:
        if len(shape) != 4 or self.height % shape[2] or self.width % shape[3]:
            return None
        factors = {self.height // shape[2], self.width // shape[3]}
        factor = factors.pop()
        return factor if not factors and factor & (factor - 1) == 0 else None


def candidates(
    module: nn.Module, images: Images, bounded: bool, decided: Sequence[Mapping[str, str]] = ()
) -> Iterator[Sizes]:
    """Sizes that a file could take, the most general first.

    `decided` is what was decided for one size when the network was captured, as in `report.guards`.

    The network is run to see which multiples it takes; that is also where it says itself that it takes one size only.
    Where torch.export cannot prove those (padding to a multiple inside the network is beyond its arithmetic), multiples
    of the total stride come next.

    Raises:
        ExportError: the network takes no other size than the example's, or the example is too small.
    """
    stride = _stride(module, images)
    low = 2 * stride  # at a single row or column torch.export would take the size for a constant
    if min(images.height, images.width) < low:
        raise ExportError(
            f"--dynamic needs an example of at least {low}x{low}, twice the network's total stride, and {images.call} "
            "is smaller: pass inputs (--input)",
            code="too-small",
        )
    high = (2 * images.height, 2 * images.width) if bounded else None
    multiple = _taken_multiple(module, images, stride, decided)
    batch = not bounded and _takes(module, images.at(images.height, images.width, images.batch + 1))
    multiples = dict.fromkeys((multiple, stride) if stride % multiple == 0 else (multiple,))
    for one in multiples:
        yield from (Sizes(one, math.ceil(low / one) * one, high, free) for free in dict.fromkeys((batch, False)))


def example_sizes(sizes: Sizes, images: Images) -> CallSpec:
    """A call to trace at: H and W differ, and the batch is not 1, or torch.export would take them for one another."""
    height = sizes.up(images.height)
    width = sizes.up(images.width)
    if height == width:
        width += sizes.multiple
    return images.at(height, width, max(2, images.batch) if sizes.batch else None)


def second_size(sizes: Sizes, images: Images) -> CallSpec:
    """A call to compare at that is none of the example's multiples: one step lower, two steps wider."""
    step = sizes.multiple
    height, width = sizes.up(images.height), sizes.up(images.width) + 2 * step
    height += -step if height - step >= sizes.low else step
    return images.at(height, width, images.batch + 1 if sizes.batch else None)


def _taken_multiple(module: nn.Module, images: Images, stride: int, decided: Sequence[Mapping[str, str]]) -> int:
    """The smallest power of 2 (at least the smallest image's factor) by which the network's input may grow."""
    base = [math.ceil(side / stride) * stride for side in (images.height, images.width)]
    step = images.factor
    while True:
        others = [images.at(base[0] + down * step, base[1] + right * step) for down, right in _STEPS]
        refused = next((other for other in others if not _takes(module, other)), None)
        if refused is None:
            return step
        if step >= stride:
            break
        step *= 2
    raise ExportError(
        f"the network does not take {refused} in place of {images.call}: {_stopped(module, refused, decided)}. Rewrite "
        "that so that it holds for every size, or export at one size, without --dynamic",
        code="wrong-input",
    )


_STEPS = ((1, 0), (0, 1), (1, 3))


def _takes(module: nn.Module, call: CallSpec) -> bool:
    try:
        run(module, call.example())
    except Exception:  # whatever a network raises at a size that it does not take
        return False
    return True


def _stopped(module: nn.Module, call: CallSpec, decided: Sequence[Mapping[str, str]]) -> str:
    """In which layer a network stops at a size that it does not take, and why.

    A guard stands in generated source: the line to name is the one that decided when the network was captured.
    """
    within: list[str] = []
    try:
        observe(module, call.example(), within=within)
    except Exception as error:  # whatever a network raises at a size that it does not take
        path = within[-1] if within else ""
        line = _deciding_lines(path, decided) if is_guards(error) else source_line(error)
        return f"{describe(path, type(module.get_submodule(path)).__name__)}: {reason(error)}{line}"
    return "it does not always"  # it took it this time


def _deciding_lines(path: str, decided: Sequence[Mapping[str, str]]) -> str:
    """` (net.py:12: if height % 8:)`: the lines that decided in the module at `path`, or else anywhere."""
    within = [one for one in decided if path in ("", one["module"]) or one["module"].startswith(f"{path}.")]
    own = [one for one in within if one["module"] == path]
    lines = dict.fromkeys(one.get("line", "") for one in own or within or decided)
    return f" ({', '.join(filter(None, lines))})" if any(lines) else ""


def _stride(module: nn.Module, images: Images) -> int:
    """The total stride, seen at a size at which no level is too small to be told from another, if it takes that."""
    from ..analysis.anatomy import infer
    from ..frontend import capture

    for call in (images.at(_CLEAR, _CLEAR), images.call):
        try:
            return total_stride(infer(capture(module, call, compare=False)))
        except MofaError:
            continue
    return _UNKNOWN_STRIDE
