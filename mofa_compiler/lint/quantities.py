"""What budgets and inputs are written as: `1.2M`, `20MiB`, `1x3x256x256`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

_DECIMAL = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BYTES = {
    "": 1,
    "B": 1,
    **{f"{prefix}B": scale for prefix, scale in {**_DECIMAL, "K": 10**3}.items() if prefix},
    **{f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGT", 1)},
}
_NUMBER = re.compile(r"(\d{1,18}(?:\.\d{1,18})?) ?([A-Za-z]*)", re.ASCII)
_SHAPE = re.compile(r"[1-9]\d{0,8}(x[1-9]\d{0,8})*", re.ASCII)


def number(value: Any) -> int:
    """A limit for a count, from a whole number, or from text with a decimal prefix: `850k`, `1.2M`, `2G`, `1T`.

    What is behind the decimal point of a limit for whole numbers has no effect, and is cut off.

    Raises:
        ValueError: it is neither, or less than 1.
    """
    return _scaled(value, _DECIMAL, "a number such as 2G")


def memory(value: Any) -> int:
    """A limit in bytes, from a whole number, or from text with a unit: `20MB` (decimal), `20MiB` (binary), `512kB`.

    Raises:
        ValueError: it is neither, or less than 1.
    """
    return _scaled(value, _BYTES, "a size in bytes such as 20MB or 20MiB")


def shape(value: Any) -> tuple[int, ...]:
    """The shape that text such as `1x3x256x256` stands for.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, str) or not _SHAPE.fullmatch(value):
        raise ValueError(f"{value!r} is not a shape such as 1x3x256x256")
    return tuple(map(int, value.split("x")))


def is_file_of_inputs(text: str) -> bool:
    """Whether text names a file of inputs (see `mofa_compiler.loading.input_files`) rather than a shape."""
    return text.endswith((".json", ".py")) or ":" in text


def _scaled(value: Any, units: Mapping[str, int], form: str) -> int:
    found: int | None = None
    if isinstance(value, int) and not isinstance(value, bool):
        found = value
    elif isinstance(value, float) and value.is_integer():  # 2e9
        found = int(value)
    elif isinstance(value, str) and (match := _NUMBER.fullmatch(value)) and match[2] in units:
        found = int(Decimal(match[1]) * units[match[2]])
    if found is None:
        raise ValueError(f"{value!r} is not {form}")
    if found < 1:
        raise ValueError(f"{value!r} is less than 1")
    return found
