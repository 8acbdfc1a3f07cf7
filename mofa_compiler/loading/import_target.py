"""The architecture that a command line names: imported, and constructed with the arguments given.

A target runs the code that it names, as `import` does. What that code prints goes to stderr.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import sys
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

from torch import nn

from ..base.errors import TargetError, nearest
from .importing import FORM, failed, import_source
from .wrappers import unwrapped


def load_target(target: str, args: Mapping[str, Any] | None = None) -> nn.Module:
    """The module that a target names: a class or factory, called with `args`, or an instance; without its wrappers.

    Args:
        target: `package.module:Class` or `path/to/file.py:factory`; the name may have dots.
        args: keyword arguments for it.

    Raises:
        TargetError: the module, file or name does not exist, the arguments do not fit, the code fails, or what comes
            out is no `nn.Module`.
    """
    source, separator, name = target.rpartition(":")
    if not separator or not source or not name or name.endswith(".py"):
        raise TargetError(f"{target!r} names no class or function: {FORM}", code="unknown-name")
    with contextlib.redirect_stdout(sys.stderr):
        module = import_source(source)
        return unwrapped(_construct(_attribute(module, name, source), target, dict(args or {})))


def parse_args(assignments: Iterable[str]) -> dict[str, Any]:
    """Keyword arguments from `name=value`: a Python literal (`16`, `[1, 1]`, `None`, `"text"`), or text as it is.

    Raises:
        TargetError: no `=`, a name that cannot be an argument's, or one given twice.
    """
    parsed: dict[str, Any] = {}
    for assignment in assignments:
        name, separator, value = assignment.partition("=")
        name = name.strip()
        if not separator or not name.isidentifier():
            raise TargetError(f"argument {assignment!r} is not of the form name=value", code="bad-value")
        if name in parsed:
            raise TargetError(f"argument {name!r} is given twice", code="ambiguous")
        try:
            parsed[name] = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            parsed[name] = value
    return parsed


def _attribute(module: ModuleType, name: str, source: str) -> Any:
    found: Any = module
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            inside = getattr(found, "__dict__", {})
            known = [key for key, value in inside.items() if callable(value) and not key.startswith("_")]
            own = [key for key in known if getattr(inside[key], "__module__", None) == module.__name__]
            hint = nearest(part, own or known) if known else ", nor any class or function"
            raise TargetError(f"{source} has no {part!r}{hint}", code="unknown-name") from error
    return found


def _construct(found: Any, target: str, args: dict[str, Any]) -> nn.Module:
    if isinstance(found, nn.Module):
        if args:
            raise TargetError(
                f"{target} is a module already and takes no arguments ({', '.join(args)})", code="unknown-option"
            )
        return found
    if not callable(found):
        raise TargetError(
            f"{target} is a {type(found).__name__}, not a class or function that makes an nn.Module", code="wrong-kind"
        )
    if isinstance(found, type) and not issubclass(found, nn.Module):
        raise TargetError(f"{target} is a class, but not one of nn.Module", code="wrong-kind")
    _check_arguments(found, target, args)
    try:
        model = found(**args)
    except (Exception, SystemExit) as error:
        raise failed(f"{target} with {_call(args)}", error) from error
    if not isinstance(model, nn.Module):
        raise TargetError(f"{target} returned a {type(model).__name__}, not an nn.Module", code="wrong-kind")
    return model


def _check_arguments(found: Any, target: str, args: Mapping[str, Any]) -> None:
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):
        return
    parameters = signature.parameters
    plain = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters.values()]
    call = f"{target.rpartition(':')[2]}{inspect.Signature(plain)}"
    takes = f"it is {call}; give arguments as --arg name=value (in a configuration: args)"
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    unknown = next((name for name in args if name not in parameters), None)
    if unknown is not None and not takes_any:
        hint = nearest(unknown, parameters) if parameters else ""
        raise TargetError(f"{target} takes no argument {unknown!r}{hint}; {takes}", code="unknown-option")
    try:
        signature.bind(**args)
    except TypeError as error:
        raise TargetError(f"{target}: {error}; {takes}", code="failed") from error


def _call(args: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in args.items()) or "no arguments"
