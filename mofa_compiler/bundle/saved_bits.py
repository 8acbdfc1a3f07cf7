"""Whether a saved network computes what the one that it was written from does, bit for bit.

Bits depend on more than source and weights: on the order in which a kernel sums, and that on how the weights lie in
memory (channels_last, transposed, a slice of something larger). A bundle stores them contiguous. So the network is
compared with its weights laid out as they are stored, where every difference is the source's, and once more as they
are, where rounding may differ.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from ..base.errors import BundleError
from ..graph.call_spec import CallSpec, InputSpec, tensor_leaves
from ..numerics.running import run

_CHECKED_SIZE = 64
"""Height and width of the crop on which the saved model is compared, where the network takes one so small"""

_ROUNDING = 2000
"""Epsilons of a precision that sums in other orders may come to in a network"""

_ALIGNMENT = 64
"""Of addresses that torch allocates, in bytes; at other ones sums may be taken in another order"""


def compare(model: nn.Module, saved: nn.Module, call: CallSpec) -> None:
    """Refuse a saved network that does not compute what `model` does.

    Raises:
        BundleError: it does not; or `model` itself does not, once its weights lie as they are stored.
    """
    weight = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    saved.to(weight.device)
    call = call.map(lambda spec: replace(spec, dtype=weight.dtype) if spec.dtype.is_floating_point else spec)
    stored = _as_stored(model)
    example, expected = _first_output(stored, call, weight.device)
    got = _leaves(run(saved, example))
    if not _equal(expected, got):
        again = _leaves(run(stored, example))  # some kernels on GPUs sum in another order at every run
        if _equal(expected, again) or not _off(expected, got) <= _allowed(expected):
            raise BundleError(
                "the written source computes something else than the model: a bug, please report it",
                code="computes-else",
            )
    if stored is model:
        return
    off = _off(_leaves(run(model, example)), expected)
    if not off <= _allowed(expected):
        raise BundleError(
            f"a bundle stores weights contiguous, and so the network computes something else ({off:.2g} off): its code "
            f"reads how they lie in memory, or rounding grows in it; make them contiguous first, {_odd(model)} say",
            code="computes-else",
        )


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return chain(model.named_parameters(), model.named_buffers())


def _odd(model: nn.Module) -> str:
    """The first tensor that does not lie as it is stored, empty where there is none."""
    return next((name for name, tensor in _tensors(model) if not _lies_as_stored(tensor)), "")


def _lies_as_stored(tensor: Tensor) -> bool:
    return tensor.stride() == _stored(tensor).stride() and tensor.data_ptr() % _ALIGNMENT == 0


def _stored(tensor: Tensor) -> Tensor:
    """An empty tensor of the same kind, laid out as a file of weights gives it."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")


def _as_stored(model: nn.Module) -> nn.Module:
    """The model with its tensors laid out as a bundle stores them: itself where they lie so, or a copy."""
    if not _odd(model):
        return model
    model = copy.deepcopy(model)
    for _, tensor in _tensors(model):
        # `contiguous` leaves strides of dimensions of 1 as they are, by which kernels choose a layout
        tensor.data = torch.empty_like(_stored(tensor), device=tensor.device).copy_(tensor.data)
    return model


def _first_output(model: nn.Module, call: CallSpec, device: torch.device) -> tuple[CallSpec, list[Tensor]]:
    """What the model returns for a small crop if it takes one, for the whole example otherwise; and that input."""
    for size in (call.map(_crop), call):
        example = size.example(device=device)
        try:
            return example, _leaves(run(model, example))
        except (RuntimeError, ValueError):
            if size == call:
                raise
    raise AssertionError


def _leaves(output: Any) -> list[Tensor]:
    return list(tensor_leaves(output))


def _equal(expected: list[Tensor], got: list[Tensor]) -> bool:
    pairs = zip(expected, got, strict=True)
    return all(torch.equal(one.nan_to_num(), other.nan_to_num()) for one, other in pairs)


def _off(expected: list[Tensor], got: list[Tensor]) -> float:
    """Largest difference ÷ largest value, over all outputs that rounding changes; infinite for other shapes.

    Whole numbers and truth values are left out: where rounding flips one, that says nothing of its size.
    """
    difference = largest = 0.0
    for one, other in zip(expected, got, strict=True):
        if one.dtype == other.dtype and not (one.is_floating_point() or one.is_complex()):
            continue
        one, other = (_numbers(tensor) for tensor in (one, other))
        if one.shape != other.shape or not torch.equal(one.isfinite(), other.isfinite()):
            return float("inf")
        one, other = (tensor.nan_to_num(0, 0, 0) for tensor in (one, other))
        difference = max(difference, float((one - other).abs().max()) if one.numel() else 0.0)
        largest = max(largest, float(one.abs().max()) if one.numel() else 0.0)
    return difference / largest if largest else difference


def _numbers(tensor: Tensor) -> Tensor:
    return (torch.view_as_real(tensor) if tensor.is_complex() else tensor).double()


def _allowed(outputs: list[Tensor]) -> float:
    """What rounding may come to, by the coarsest precision among the outputs."""
    kinds = (tensor.dtype for tensor in outputs if tensor.is_floating_point() or tensor.is_complex())
    return min(0.1, max((_ROUNDING * torch.finfo(dtype).eps for dtype in kinds), default=0.0))


def _crop(spec: InputSpec) -> InputSpec:
    if len(spec.shape) != 4:
        return spec
    return InputSpec((1, spec.shape[1], *(min(size, _CHECKED_SIZE) for size in spec.shape[2:])), spec.dtype)
