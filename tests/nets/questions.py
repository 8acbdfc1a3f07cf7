"""Functions that networks of the tests call, in a module that defines no class of theirs."""

from __future__ import annotations

import functools
import numbers
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


def is_tensor(x: Any) -> bool:
    return isinstance(x, Tensor)


def type_is_tensor(x: Any) -> bool:
    return type(x) is Tensor


def type_in_tuple(x: Any) -> bool:
    return type(x) in (Tensor, torch.nn.Parameter)


def type_in_table(x: Any) -> bool:
    return {Tensor: True}.get(type(x), False)


def subclass_of_tensor(x: Any) -> bool:
    return issubclass(type(x), Tensor)


def class_is_tensor(x: Any) -> bool:
    return x.__class__ is Tensor


def class_is_named_tensor(x: Any) -> bool:
    return x.__class__.__name__ == "Tensor"


def matches_tensor(x: Any) -> bool:
    match x:
        case Tensor():
            return True
        case _:
            return False


@functools.singledispatch
def dispatched(_: Any) -> bool:
    return False


@dispatched.register
def _(_: Tensor) -> bool:
    return True


def float_tensor(x: Any) -> bool:
    return isinstance(x, torch.FloatTensor)


def has_shape(x: Any) -> bool:
    return hasattr(x, "shape")


def torch_is_tensor(x: Any) -> bool:
    return torch.is_tensor(x)


def list_of_tensors(x: Any) -> bool:
    return torch.jit.isinstance([x], list[Tensor])


TENSOR = (
    is_tensor,
    type_is_tensor,
    type_in_tuple,
    type_in_table,
    subclass_of_tensor,
    class_is_tensor,
    class_is_named_tensor,
    matches_tensor,
    dispatched,
    float_tensor,
    has_shape,
    torch_is_tensor,
    list_of_tensors,
)
"""What is true of an image, and of no size"""


def is_int(n: Any) -> bool:
    return isinstance(n, int)


def type_is_int(n: Any) -> bool:
    return type(n) is int


def type_equals_int(n: Any) -> bool:
    return type(n) == int  # noqa: E721


def type_in_numbers(n: Any) -> bool:
    return type(n) in (int, float)


def type_in_number_table(n: Any) -> bool:
    return {int: True}.get(type(n), False)


def is_number(n: Any) -> bool:
    return isinstance(n, numbers.Number)


def matches_int(n: Any) -> bool:
    match n:
        case int():
            return True
        case _:
            return False


def is_no_tensor(n: Any) -> bool:
    return not is_tensor(n) and not type_is_tensor(n) and not has_shape(n)


def is_not_iterable(n: Any) -> bool:
    return not isinstance(n, Iterable) and not hasattr(n, "__len__")


def is_not_callable(n: Any) -> bool:
    return not callable(n)


SIZE = (
    is_int,
    type_is_int,
    type_equals_int,
    type_in_numbers,
    type_in_number_table,
    is_number,
    matches_int,
    is_no_tensor,
    is_not_iterable,
    is_not_callable,
)
"""What is true of a size"""


def is_parameter(p: Any) -> bool:
    return isinstance(p, torch.nn.Parameter) and type(p) is torch.nn.Parameter


def not_traced() -> bool:
    return not torch.fx._symbolic_trace.is_fx_symbolic_tracing()


def gradients() -> bool:
    return torch.is_grad_enabled()
