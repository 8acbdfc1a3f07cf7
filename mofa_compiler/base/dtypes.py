"""Conversions between dtypes: which keep what numbers say."""

from __future__ import annotations

import torch
from torch import Tensor

_FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Those that rounding alone tells apart; narrower ones come with scales of their own"""


def converts(tensor: Tensor, dtype: torch.dtype) -> bool:
    """Whether a tensor can be loaded as a dtype: its numbers may be rounded to another precision, but nothing more.

    Integers are no weights, complex numbers are not real, and what is to become an integer or a truth value must be
    one already.
    """
    if tensor.is_meta or tensor.layout is not torch.strided:
        return False
    if tensor.dtype == dtype:
        return True
    if tensor.is_quantized:
        return False
    if dtype.is_complex or tensor.is_complex():
        return dtype.is_complex and tensor.is_complex()
    if dtype.is_floating_point:
        return dtype in _FLOATING and tensor.dtype in _FLOATING
    return _is_whole_in(tensor, dtype)


def number_text(value: Tensor) -> str:
    """What a tensor holds, such as `complex64`, and how, where that is not as usual."""
    text = str(value.dtype).removeprefix("torch.")
    layout = "" if value.layout is torch.strided else f", {str(value.layout).removeprefix('torch.')}"
    return f"{text}{layout}{', without values' if value.is_meta else ''}"


def _is_whole_in(tensor: Tensor, dtype: torch.dtype) -> bool:
    """Whether all numbers are whole, and within what an integer dtype (or bool) can hold."""
    if dtype in (torch.quint8, torch.qint8, torch.qint32):
        return False
    low, high = (0, 1) if dtype == torch.bool else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)
    if not tensor.numel():
        return True
    if tensor.is_floating_point():
        values = tensor.double()
        return bool((values == values.trunc()).all()) and low <= float(values.min()) and float(values.max()) <= high
    numbers = tensor.numpy()  # torch has no minimum of some integer dtypes
    return low <= int(numbers.min()) and int(numbers.max()) <= high
