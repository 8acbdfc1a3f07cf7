"""Precisions that networks run in."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

Precision: TypeAlias = Literal["fp32", "fp16", "bf16", "int8"]
"""Of weights and activations; `int8`: of what the engine's quantizer takes, the rest in fp32"""

Half: TypeAlias = Literal["fp16", "bf16"]

HALF: tuple[Half, ...] = get_args(Half)

PRECISIONS: tuple[Precision, ...] = get_args(Precision)


def in_precision(precision: str) -> str:
    """` in int8` for text after an engine's name; nothing for what everything is in unless it is said."""
    return "" if precision == "fp32" else f" in {precision}"
