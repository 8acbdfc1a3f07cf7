"""Meta values of operations for which torch has none, though their shapes follow from their arguments."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.fx.experimental._config
from torch import Tensor
from torch.utils import _pytree as pytree

from . import recurrent


def istft(
    input: Tensor,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Tensor | None = None,
    center: bool = True,
    normalized: bool = False,
    onesided: bool | None = None,
    length: int | None = None,
    return_complex: bool = False,
) -> Tensor:
    """The samples that a spectrogram of this shape is turned back into."""
    if not input.is_complex() or input.dim() not in (2, 3):
        raise RuntimeError(f"istft takes complex spectrograms of 2 or 3 dimensions, not {input.dtype} of {input.dim()}")
    *batch, frequencies, frames = input.shape
    halved = not return_complex if onesided is None else onesided
    if frequencies != (n_fft // 2 + 1 if halved else n_fft):
        raise RuntimeError(f"istft with n_fft={n_fft} does not take {frequencies} frequencies")
    samples = n_fft + (n_fft // 4 if hop_length is None else hop_length) * (frames - 1)
    known = samples - 2 * (n_fft // 2) if center else samples
    dtype = input.dtype if return_complex else input.dtype.to_real()
    return torch.empty(*batch, known if length is None else length, dtype=dtype, device="meta")


def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """All elements, of which a mask may select as few as it likes."""
    return input.expand(torch.where(mask, input, input).shape).flatten()


_BY_NAME: dict[str, Callable[..., Any]] = {"istft": istft, "masked_select": masked_select}
_INDEXED = (operator.getitem, operator.setitem)


def call(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Call a function of torch's, or a method, on meta tensors.

    A mask counts as if it selected every element: of how many it does, values decide.
    """
    ours = _BY_NAME.get(getattr(function, "__name__", "")) if _is_torch(function) else None
    if ours is not None:
        return ours(*args, **kwargs)
    if getattr(function, "__name__", "") in recurrent.FUNCTIONS and _is_torch(function) and not kwargs:
        return recurrent.function_output(function, args)
    if function in _INDEXED:
        args = (args[0], pytree.tree_map_only(Tensor, _mask, args[1]), *args[2:])
    try:
        return function(*args, **kwargs)
    except NotImplementedError as error:
        if "nonzero" not in str(error):
            raise
        settings: Any = torch.fx.experimental._config
        with settings.patch(meta_nonzero_assume_all_nonzero=True):
            return function(*args, **kwargs)


def _is_torch(function: Callable[..., Any]) -> bool:
    name = getattr(function, "__name__", "")
    return function in (getattr(torch, name, None), getattr(torch.Tensor, name, None))


def _mask(index: Tensor) -> Tensor:
    """An index of bytes, which on meta tensors is not taken for the mask that it is."""
    return index.bool() if index.dtype is torch.uint8 else index
