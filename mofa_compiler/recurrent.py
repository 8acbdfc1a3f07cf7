"""Recurrent layers: their outputs and their multiply-accumulates follow from their input's shape.

On meta tensors torch takes them step by step, which for a sequence of a thousand takes seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

_KINDS = (nn.GRU, nn.LSTM, nn.RNN)


def is_recurrent(module: nn.Module) -> bool:
    """Whether a module is one of torch's own layers that go through a sequence, not a cell, nor a subclass."""
    return type(module) in _KINDS


def output(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """What a layer on the meta device returns: one step is taken, as every other one has its shape."""
    given = dict(zip(("input", "hx"), args, strict=False)) | dict(kwargs)
    x = given.get("input")
    time = 1 if module.batch_first and isinstance(x, Tensor) and x.dim() == 3 else 0
    if not isinstance(x, Tensor) or x.dim() not in (2, 3) or x.shape[time] < 2:
        return module(**given)  # a packed sequence, or what torch does not take
    steps, given["input"] = x.shape[time], x.narrow(time, 0, 1)
    y, state = module(**given)
    y = y.transpose(0, time)  # steps are computed one behind the other in memory, whatever is first
    return y.new_empty((steps, *y.shape[1:])).transpose(0, time), state


def macs(module: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Products with the weights of every layer and direction, all of which every step of every sequence meets once."""
    weights = sum(tensor.numel() for name, tensor in module.named_parameters() if name.startswith("weight_"))
    return torch.Size(input_shape[:-1]).numel() * weights
