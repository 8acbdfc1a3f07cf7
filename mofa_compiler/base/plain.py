"""Plain data: values in types that JSON has, the versions that made a file, and files that may be damaged."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError


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


def read_json(file: Path) -> Any:
    """What a JSON file holds.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not JSON, not UTF-8 or nested without end; the message says which, in a few words.
    """
    try:
        return json.loads(file.read_bytes().decode("utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def first_problem(error: ValidationError) -> str:
    """Where the first thing is that a model of pydantic refuses, and why: `inputs.args[0].shape: …`."""
    problem = error.errors()[0]
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in problem["loc"])
    where = "".join(steps).lstrip(".")
    what = problem["msg"].removeprefix("Value error, ")
    return f"{where}: {what[:1].lower()}{what[1:]}" if where else what
