"""Convolutions with one number where torch keeps one a dimension: `conv.stride = 1`, set after they were built."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.conv import _ConvNd

from ..graph.plain_layers import is_torchs
from .state import copied

_NAMES = ("kernel_size", "stride", "padding", "dilation", "output_padding")


def with_tuples(model: nn.Module) -> nn.Module:
    """A copy that shares all weights and has tuples there, which computes the same; the model where it has them all."""
    if not any(map(_tuples, model.modules())):
        return model
    new = copied(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})
    for module in new.modules():
        for name, values in _tuples(module).items():
            setattr(module, name, values)
    return new


def _tuples(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """For what of a convolution is one number; nothing of a subclass, whose own code may count on that."""
    if not is_torchs(module, _ConvNd):
        return {}
    rank = module.weight.dim() - 2
    return {name: (value,) * rank for name in _NAMES if isinstance(value := getattr(module, name), int)}
