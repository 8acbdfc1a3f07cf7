"""What a recipe may hold: nothing of it is used before it fits this."""

from __future__ import annotations

import os
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ..base.plain import first_problem
from ..graph.call_spec import CallSpec

_DEEPEST = 32
"""Lists and dicts in each other, among the arguments of a call"""

Count = Annotated[int, Field(ge=0)]


class _Part(BaseModel):
    """Keys that are not known are left alone: a later version may write more of them."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow")


class _Architecture(_Part):
    name: str = Field(alias="class")
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class _Original(_Part):
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    checkpoint: str | None = None


class _Decision(_Part):
    pass_: str = Field(alias="pass")
    path: str
    before: str
    after: str
    fate: str
    exact: bool
    reason: str = ""


class Document(_Part):
    """A recipe of schema `mofa-recipe/1`, as `recipe.recipe` writes it; the optional keys came in later versions."""

    mofa: str
    torch: str
    roadmap: dict[str, Any]
    architecture: _Architecture
    original: _Original | None = None
    inputs: dict[str, Any]
    decisions: list[_Decision]
    measured: dict[str, Any] | None = None
    channel_orders: dict[Annotated[str, Field(pattern="^[0-9]{1,9}$")], list[Count]] = Field(default_factory=dict)
    frozen: list[str] = Field(default_factory=list)

    @field_validator("inputs")
    @classmethod
    def _call(cls, inputs: dict[str, Any]) -> dict[str, Any]:
        for key, kind in (("args", list), ("kwargs", dict)):
            if not isinstance(inputs.get(key), kind):
                raise ValueError(f"{key} is {'missing' if key not in inputs else 'of another kind than it should be'}")
        for index, value in enumerate(inputs["args"]):
            _check_tree(value, f"args[{index}]", _DEEPEST)
        for name, value in inputs["kwargs"].items():
            _check_tree(value, f"kwargs.{name}", _DEEPEST)
        return inputs

    @field_validator("channel_orders")
    @classmethod
    def _permutations(cls, orders: dict[str, list[int]]) -> dict[str, list[int]]:
        for index, order in orders.items():
            if sorted(order) != list(range(len(order))):
                raise ValueError(f"{index} is no order of {len(order)} channels")
        return orders


def check(document: Any) -> None:
    """Refuse a recipe that is damaged.

    Raises:
        ValueError: a key is missing or holds what it may not; the message names it.
    """
    try:
        Document.model_validate(document)
    except ValidationError as error:
        raise ValueError(first_problem(error)) from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    call = CallSpec.from_data(document["inputs"])
    needed = sum(_bytes(spec.shape, spec.dtype) for spec in call.tensors)
    if needed > (there := _memory()):
        raise ValueError(f"inputs: {call} take {needed / 2**30:,.0f} GiB, and this machine has {there / 2**30:,.0f}")


def _check_tree(tree: Any, where: str, deepest: int) -> None:
    """Refuse what is no argument of a call, as `CallSpec.to_data` writes it.

    Raises:
        ValueError: naming the place in it.
    """
    if not deepest:
        raise ValueError("is nested too deeply")
    match tree:
        case {**keys} if len(keys) != (2 if "shape" in keys else 1):  # patterns take what has more keys, too
            raise ValueError(f"{where} is {str(tree)[:60]}, which is no argument")
        case {"shape": list(shape), "dtype": str(name)}:
            if not all(type(size) is int and 0 <= size < 2**40 for size in shape) or len(shape) > 64:
                raise ValueError(f"{where} has a shape of {str(shape)[:60]}")
            if not isinstance(getattr(torch, name, None), torch.dtype):
                raise ValueError(f"{where} has a dtype of {name[:60]!r}")
        case {"dict": dict(entries)}:
            for key, value in entries.items():
                _check_tree(value, f"{where}.{key}", deepest - 1)
        case {"list": list(items)} | {"tuple": list(items)}:
            for index, item in enumerate(items):
                _check_tree(item, f"{where}[{index}]", deepest - 1)
        case {"dtype": str(name)} if "shape" not in tree and isinstance(getattr(torch, name, None), torch.dtype):
            pass
        case {"device": str(name)} if _is_device(name):
            pass
        case {"value": None | bool() | int() | float() | str()}:
            pass
        case _:
            raise ValueError(f"{where} is {str(tree)[:60]}, which is no argument")


def _is_device(name: str) -> bool:
    try:
        torch.device(name)
    except RuntimeError:
        return False
    return True


def _bytes(shape: tuple[int, ...], dtype: torch.dtype) -> int:
    size = dtype.itemsize
    for dimension in shape:
        size *= dimension
    return size


def _memory() -> int:
    """Bytes of memory that this machine has."""
    if not hasattr(os, "sysconf"):
        return 2**40
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
