"""Inputs that a file holds: JSON in the form that recipes have, or Python code that makes them.

    {"args": [{"shape": [1, 3, 64, 64], "dtype": "float32"}, null, true], "kwargs": {"scale": 2}}

In JSON a tensor is given by its shape and, unless that is the weights', its dtype; other values stand as they are, or
as `{"value": 3}`, `{"list": [...]}`, `{"tuple": [...]}`, `{"dict": {...}}`, `{"dtype": "int64"}`, `{"device": "cpu"}`.
Python code has `example_inputs` or `example`, or what is named behind a colon: the inputs, or a function that makes
them.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..base.errors import InputError, MofaError, nearest, one_line
from ..graph.call_spec import CallSpec, ExampleInputs, InputSpec, Tree, weights_dtype
from .importing import import_source

Make = Callable[[nn.Module], ExampleInputs]
"""Makes the inputs of a network"""

_NAMES = ("example_inputs", "example")
_TAGS = ("shape", "value", "list", "tuple", "dict", "dtype", "device")
_DTYPES = {name: value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}


def of_shapes(shapes: Sequence[tuple[int, ...]]) -> Make:
    """What makes inputs of these shapes in the precision of the weights."""
    return lambda model: CallSpec(tuple(InputSpec(shape, weights_dtype(model)) for shape in shapes))


def read_inputs(source: str) -> Make:
    """What makes the inputs that a file holds: `inputs.json`, `inputs.py`, `inputs.py:name` or `package.module:name`.

    Raises:
        InputError: there is no such file, or it holds something else; the message names the key.
        TargetError: the code cannot be imported.
    """
    if not source.endswith(".json"):
        return _from_code(source)
    try:
        data = json.loads(Path(source).expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the inputs {source}: {error.strerror}", code="unreadable") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{source} is no JSON: {error}", code="damaged") from error
    _call(data, source, torch.float32)  # what is wrong shows before a network is built
    return lambda model: _call(data, source, weights_dtype(model))


def _from_code(source: str) -> Make:
    file, separator, name = source.rpartition(":")
    file, name = (file, name) if separator and name and not name.endswith(".py") else (source, "")
    with contextlib.redirect_stdout(sys.stderr):
        module = import_source(file)
    chosen = next((one for one in ((name,) if name else _NAMES) if hasattr(module, one)), None)
    if chosen is None:
        wanted = name or " or ".join(_NAMES)
        hint = nearest(name, (key for key in vars(module) if not key.startswith("_"))) if name else ""
        raise InputError(
            f"{file} has no {wanted}{hint}: the inputs, or a function that makes them", code="unknown-name"
        )
    found = getattr(module, chosen)

    def make(_: nn.Module) -> Any:
        if not callable(found):
            return found
        try:
            with contextlib.redirect_stdout(sys.stderr):
                return found()
        except MofaError:
            raise
        except (Exception, SystemExit) as error:
            raise InputError(f"{chosen}() of {file} failed: {one_line(error)}", code="failed") from error

    return make


def _call(data: Any, source: str, dtype: torch.dtype) -> CallSpec:
    reader = _Reader(source, dtype)
    if isinstance(data, list):
        data = {"args": data}
    if not isinstance(data, dict) or not data.keys() & {"args", "kwargs"}:
        raise reader.wrong("", data, 'an object with "args", a list, and "kwargs", an object by name')
    unknown = next((key for key in data if key not in ("args", "kwargs")), None)
    if unknown is not None:
        raise InputError(
            f"{source}: there is no key {unknown!r}{nearest(unknown, ('args', 'kwargs'))}", code="unknown-name"
        )
    args, kwargs = data.get("args", []), data.get("kwargs", {})
    if not isinstance(args, list):
        raise reader.wrong("args", args, "a list")
    if not isinstance(kwargs, dict):
        raise reader.wrong("kwargs", kwargs, "an object by name")
    return CallSpec(
        tuple(reader.tree(item, f"args[{index}]") for index, item in enumerate(args)),
        {name: reader.tree(item, f"kwargs.{name}") for name, item in kwargs.items()},
    )


class _Reader:
    """Reads trees of values out of plain data; what is wrong is named by file and key."""

    def __init__(self, source: str, dtype: torch.dtype):
        self.source, self.dtype = source, dtype

    def tree(self, data: Any, key: str) -> Tree:
        if isinstance(data, list):
            return self._list(data, key)
        if not isinstance(data, dict):
            return data
        tag = next((tag for tag in _TAGS if tag in data), None)
        allowed = {"shape", "dtype"} if tag == "shape" else {tag}
        unknown = next((name for name in data if name not in allowed), None)
        if tag is None or unknown is not None:
            forms = ", ".join(f'"{one}"' for one in _TAGS)
            problem = f"there is no {unknown!r}{nearest(unknown, _TAGS)}" if unknown is not None else "it is empty"
            raise InputError(
                f"{self.source}: {key}: {problem}; an object has one of {forms} (a tensor may have both "
                '"shape" and "dtype")',
                code="bad-value",
            )
        return self._tagged(tag, data, key)

    def _tagged(self, tag: str, data: Mapping[str, Any], key: str) -> Tree:
        value, inside = data[tag], f"{key}.{tag}"
        match tag:
            case "shape":
                return InputSpec(
                    self._shape(value, inside),
                    self._dtype(data["dtype"], f"{key}.dtype") if "dtype" in data else self.dtype,
                )
            case "list":
                return self._list(value, inside)
            case "tuple":
                return tuple(self._list(value, inside))
            case "dict":
                if not isinstance(value, dict):
                    raise self.wrong(inside, value, "an object")
                return {name: self.tree(item, f"{inside}.{name}") for name, item in value.items()}
            case "dtype":
                return self._dtype(value, inside)
            case "device":
                return self._device(value, inside)
        if isinstance(value, (dict, list)):
            raise self.wrong(inside, value, "a number, text, true, false or null")
        return value

    def _list(self, value: Any, key: str) -> list[Tree]:
        if not isinstance(value, list):
            raise self.wrong(key, value, "a list")
        return [self.tree(item, f"{key}[{index}]") for index, item in enumerate(value)]

    def _shape(self, value: Any, key: str) -> tuple[int, ...]:
        sizes = value if isinstance(value, list) else None
        if sizes is None or not all(type(size) is int and size >= 0 for size in sizes):
            raise self.wrong(key, value, "a list of whole numbers such as [1, 3, 256, 256]")
        return tuple(sizes)

    def _dtype(self, value: Any, key: str) -> torch.dtype:
        name = value.removeprefix("torch.") if isinstance(value, str) else None
        if name not in _DTYPES:
            raise self.wrong(key, value, f"a dtype of torch{nearest(str(name), _DTYPES)}")
        return _DTYPES[name]

    def _device(self, value: Any, key: str) -> torch.device:
        try:
            return torch.device(value)
        except (RuntimeError, TypeError) as error:
            raise self.wrong(key, value, "a device such as cpu") from error

    def wrong(self, key: str, value: Any, expected: str) -> InputError:
        """The error that a value is not what it should be."""
        text = json.dumps(value)
        shown = text if len(text) <= 60 else f"{text[:57]}..."
        return InputError(f"{self.source}: {f'{key}: ' if key else ''}{shown} must be {expected}", code="bad-value")
