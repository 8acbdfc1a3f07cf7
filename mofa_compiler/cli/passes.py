"""`mofa passes`: which passes are installed, and their options."""

from __future__ import annotations

import inspect
import json
import re
import types
import typing
from dataclasses import MISSING, fields
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..base.errors import RoadmapError, nearest
from . import completion, options

if TYPE_CHECKING:
    from ..rewriting.pass_api import Pass


def passes(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[PASS]", help="Describe one pass in full.", autocompletion=completion.passes),
    ] = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """List the installed passes, or describe one with its options.

    \b
    mofa passes
    mofa passes widen-portion

    \b
    Exit codes:
      0    done
      1    there is no such pass, or one cannot be loaded
      2    wrong usage
    """
    from ..rewriting.registry import available

    known = available()
    if name is not None and name not in known:
        raise RoadmapError(f"there is no pass {name!r}{nearest(name, known)}", code="unknown-name")
    described = [describe(pass_) for pass_ in (known.values() if name is None else [known[name]])]
    if as_json:
        print(json.dumps(described if name is None else described[0], indent=2, ensure_ascii=False))
        return
    from ..report.document.terminal import print_lines, wrap

    console = options.stdout_console()
    for index, entry in enumerate(described):
        if index:
            console.print()
        print_lines(console, [entry["name"]], "bold")
        text = entry["summary"] if name is None else entry["doc"]
        for paragraph in text.split("\n\n"):
            print_lines(console, wrap(paragraph, console.width, 2))
        if name is not None and entry["after"]:
            print_lines(console, wrap(f"Comes after {', '.join(entry['after'])}.", console.width, 2))
        for option in entry["options"]:
            line = f"{option['name']}: {option['type']}{_default(option)}"
            print_lines(console, wrap(line, console.width, 4, 8), "cyan")
            if name is not None:
                print_lines(console, wrap(option["doc"], console.width, 8))


def describe(pass_: type[Pass]) -> dict[str, Any]:
    """A pass as plain data: name, summary, whole description, what it has to follow, and its options."""
    from ..rewriting.pass_api import Pass

    text, own = _documentation(pass_)
    _, common = _documentation(Pass)  # type: ignore[type-abstract]
    documented = {**common, **own}
    hints = typing.get_type_hints(pass_)
    described = []
    for field in sorted(fields(pass_), key=lambda field: field.name in common):
        described.append(
            {
                "name": field.name,
                "type": type_name(hints[field.name]),
                "required": field.default is MISSING and field.default_factory is MISSING,
                "default": _default_value(field),
                "doc": documented.get(field.name, ""),
            }
        )
    return {
        "name": pass_.name,
        "summary": text.partition("\n\n")[0],
        "doc": text,
        "after": list(pass_.after),
        "options": described,
    }


def type_name(hint: Any) -> str:
    """A type as someone who writes TOML reads it: `bilinear | nearest`, `portion such as 0.25 or "1/4"`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return " | ".join(map(str, arguments))
    if origin in (typing.Union, types.UnionType):
        return " | ".join(type_name(argument) for argument in arguments)
    if origin in (tuple, list):
        inner = dict.fromkeys(type_name(argument) for argument in arguments if argument is not Ellipsis)
        return f"list of {', '.join(inner)}"
    names = {
        type(None): "nothing",
        str: "text",
        int: "whole number",
        float: "number",
        bool: "true | false",
        Fraction: "fraction",
    }
    return names.get(hint, getattr(hint, "__name__", str(hint)))


def _default_value(field: Any) -> Any:
    from ..base.plain import plain_data

    value = field.default if field.default is not MISSING else None
    if field.default_factory is not MISSING:
        value = field.default_factory()
    return plain_data(value)


def _default(option: dict[str, Any]) -> str:
    value = option["default"]
    shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return " (required)" if option["required"] else f" (default: {shown})"


def _documentation(pass_: type[Pass]) -> tuple[str, dict[str, str]]:
    """The docstring without its `Options:` section, one paragraph a line, and that section by option."""
    doc = inspect.cleandoc(pass_.__doc__ or "")
    text, _, section = doc.partition("Options:\n")
    paragraphs = [" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", text.strip())]
    documented: dict[str, str] = {}
    name = ""
    for line in inspect.cleandoc(section).splitlines():
        entry = re.match(r"(\w+): (.*)", line)
        if entry:
            name = entry[1]
            documented[name] = entry[2]
        elif name:
            documented[name] += f" {line.strip()}"
    return "\n\n".join(paragraphs), documented
