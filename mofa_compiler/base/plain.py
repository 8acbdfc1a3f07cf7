"""Plain data: values in types that JSON has, and the versions that made a file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum
from importlib.metadata import version
from typing import Any

import torch


def versions() -> dict[str, str]:
    """Of this package and of torch."""
    return {"mofa-compiler": version("mofa-compiler"), "torch": str(torch.__version__)}


def plain_data(value: Any) -> Any:
    """The same in types that JSON has; what it has not becomes null (infinities, NaN) or text."""
    if isinstance(value, Enum):
        return plain_data(value.value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain_data(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_data(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
