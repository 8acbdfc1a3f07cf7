"""What torch.export took for granted about sizes while it traced, looked at for every size that a file should take."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from types import CodeType

import torch
from torch import nn
from torch.export import ExportedProgram

from ..formats.dynamic_shapes import Images, Sizes
from ..formats.torch_export import bounds
from ..graph.call_spec import CallSpec, bound_call

_STEPS = 34
"""Sizes from the smallest on that are looked at, each height with each width: more than any usual multiple"""

_LARGE = (255, 256, 512, 1000, 1080, 1921, 4096)


def hold(program: ExportedProgram, module: nn.Module, images: Images, sizes: Sizes) -> bool:
    """Whether all that was decided by the example's size comes out alike at the others that `sizes` names.

    False where this version of torch does not tell what was decided.
    """
    written = getattr(program, "_guards_code", None)
    if written is None:
        return False
    if not all(_leaves_room(found, images, sizes, place) for place, found in enumerate(bounds(program))):
        return False
    guards = [compile(text, "<guard>", "eval") for text in written]
    return all(_hold_at(guards, module, call) for call in _calls(images, sizes))


def _leaves_room(found: Sequence[int | tuple[int, int | None]], images: Images, sizes: Sizes, place: int) -> bool:
    """Whether the bounds of a program's tensor at `place` hold its shapes at the smallest and at the largest size."""
    smallest = images.at(sizes.low, sizes.low, 1 if sizes.batch else None).tensors[place].shape
    largest = images.at(*sizes.high).tensors[place].shape if sizes.high else smallest
    for bound, least, most in zip(found, smallest, largest, strict=True):
        if isinstance(bound, int):
            if not bound == least == most:
                return False
        elif bound[0] > least or (bound[1] is not None and (sizes.high is None or bound[1] < most)):
            return False
    return True


def _hold_at(guards: Iterable[CodeType], module: nn.Module, call: CallSpec) -> bool:
    meta = call.map(lambda spec: torch.empty(spec.shape, dtype=spec.dtype, device="meta"))
    names = {"L": bound_call(module, meta).arguments, "math": math, "torch": torch}
    try:
        return all(eval(guard, names) for guard in guards)
    except Exception:  # one that is about something else than the inputs' sizes, which cannot be looked at
        return False


def _calls(images: Images, sizes: Sizes) -> Iterator[CallSpec]:
    rows, columns = (_lengths(sizes, high) for high in sizes.high or (None, None))
    for index, (height, width) in enumerate(product(rows, columns)):
        yield images.at(height, width, 1 + index % 3 if sizes.batch else None)


def _lengths(sizes: Sizes, high: int | None) -> list[int]:
    found = [sizes.low + step * sizes.multiple for step in range(_STEPS)]
    found += [sizes.up(length) for length in _LARGE]
    return sorted({length for length in found if high is None or length <= high})
