"""Recurrent layers: their outputs and their multiply-accumulates follow from their input's shape.

On meta tensors torch takes them step by step, which for a sequence of a thousand takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .plain_layers import computes_as_layer

_KINDS = (nn.GRU, nn.LSTM, nn.RNN)

FUNCTIONS = {"gru", "lstm", "rnn_tanh", "rnn_relu"}
"""Functions of torch's that such layers call"""


def is_recurrent(module: nn.Module) -> bool:
    """Whether a module computes as one of torch's own layers that go through a sequence; a cell does not."""
    return isinstance(module, _KINDS) and computes_as_layer(module)


def output(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """What a layer on the meta device returns: one step is taken, as every other one has its shape."""
    given = dict(zip(("input", "hx"), args, strict=False)) | dict(kwargs)
    x = given.get("input")
    time = 1 if module.batch_first and isinstance(x, Tensor) and x.dim() == 3 else 0
    if not isinstance(x, Tensor) or x.dim() not in (2, 3) or x.shape[time] < 2:
        return module(**given)  # a packed sequence, or what torch does not take
    y, state = module(**{**given, "input": x.narrow(time, 0, 1)})
    return _repeated(y, x.shape[time], time), state


def function_output(function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """What `torch.gru` and its like return, which layers call, and subclasses of theirs."""
    time = 1 if _is_plain(args) and args[8] else 0
    if not _is_plain(args) or args[0].shape[time] < 2:
        return function(*args)
    y, *state = function(args[0].narrow(time, 0, 1), *args[1:])
    return _repeated(y, args[0].shape[time], time), *state


def function_macs(args: tuple[Any, ...]) -> int | None:
    """As `macs`, of a function; None for a packed sequence."""
    if not _is_plain(args):
        return None
    weights: int = sum(weight.numel() for weight in args[2] if weight.dim() == 2)
    return torch.Size(args[0].shape[:-1]).numel() * weights


def _is_plain(args: tuple[Any, ...]) -> bool:
    """Whether a function is called on a sequence: of a packed one, another argument is the list of weights."""
    return len(args) == 9 and isinstance(args[2], (list, tuple))


def _repeated(y: Tensor, steps: int, time: int) -> Tensor:
    """The output of one step for as many; they lie one behind the other in memory, whatever dimension is first."""
    y = y.transpose(0, time)
    return y.new_empty((steps, *y.shape[1:])).transpose(0, time)


def macs(module: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Products with the weights of every layer and direction, all of which every step of every sequence meets once."""
    weights = sum(tensor.numel() for name, tensor in module.named_parameters() if name.startswith("weight_"))
    return torch.Size(input_shape[:-1]).numel() * weights
