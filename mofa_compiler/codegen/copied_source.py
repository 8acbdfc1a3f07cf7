"""Copies of the functions and classes that a network calls: custom autograd functions, helpers, the paper's layers."""

from __future__ import annotations

import ast
import builtins
import dataclasses
import inspect
import re
import sys
import textwrap
import types
from collections.abc import Callable, Iterable
from typing import Any

import torch

from ..base.errors import BundleError
from ..loading.importing import class_text
from ..loading.wrappers import original_of
from ..nn.partial_conv import FusedPConv2d, PConv2d, PDWConv2d
from .literals import literal

_STANDARD = {
    "torch": "import torch",
    "F": "import torch.nn.functional as F",
    "nn": "from torch import nn",
    "Tensor": "from torch import Tensor",
}
_SIMPLE = (bool, int, float, str, complex, tuple, type(None))


class Library:
    """Collects source; `sections` come in an order in which every class follows its bases."""

    def __init__(self) -> None:
        self.sections: dict[str, str] = {}
        self.imports: dict[str, str] = {}
        self._objects: dict[str, Any] = {}

    def name(self, function: Callable[..., Any]) -> str:
        """What to call where the graph calls `function`; its source is taken along.

        Raises:
            BundleError: its source is not to be had, or needs something beyond torch.
        """
        before = dict(self.sections), dict(self.imports), dict(self._objects)
        try:
            if (autograd := getattr(function, "autograd_function", None)) is not None:
                return f"{self.copy(autograd)}.apply"
            if (script := getattr(function, "script", None)) is not None:
                raise BundleError(
                    f"the network calls {script.name}(), which torch.jit made without Python source to carry along: "
                    "write it in Python",
                    code="no-source",
                )
            return self.copy(function)
        except BundleError:
            self.sections, self.imports, self._objects = before  # nothing of what was taken along for it
            if not dataclasses.is_dataclass(function):
                raise
            return self._plain_dataclass(function)

    def _plain_dataclass(self, kind: Any) -> str:
        """A dataclass of the same name and fields, for one whose methods need more than a bundle can carry."""
        name = str(kind.__name__)
        if self._objects.setdefault(name, kind) is not kind:
            raise BundleError(
                f"the network uses two different things called {name!r}: rename one of them", code="no-source"
            )
        lines = ["@dataclass", f"class {name}:"]
        for field in dataclasses.fields(kind):
            default = f" = {literal(field.default)}" if isinstance(field.default, _SIMPLE) else ""
            lines.append(f"    {field.name}: Any{default}")
        self.imports |= {"dataclass": "from dataclasses import dataclass", "Any": "from typing import Any"}
        self.sections[name] = "\n".join(lines)
        return name

    def copy(self, thing: Any) -> str:
        """Take a function or class along, with what it uses; returns its name."""
        name, home = str(thing.__name__), str(getattr(thing, "__module__", None))
        if name in self._objects:
            if self._objects[name] is not thing:
                raise BundleError(
                    f"the network uses two different things called {name!r}: rename one of them", code="no-source"
                )
            return name
        if "<locals>" in thing.__qualname__ and isinstance(thing, types.FunctionType) and thing.__closure__:
            raise BundleError(
                f"{thing.__qualname__} is a closure: move it to the top of its module, with no outer names",
                code="no-source",
            )
        try:
            source = textwrap.dedent(inspect.getsource(thing))
        except (OSError, TypeError) as error:
            place = f"{home}.{thing.__qualname__}"
            raise BundleError(f"the network calls {place}, whose source is not to be had", code="no-source") from error
        self._objects[name] = thing
        tree = ast.parse(source)
        space = dict(vars(sys.modules[home])) if home in sys.modules else {}
        if isinstance(thing, types.FunctionType):
            space = thing.__globals__
        source = _without(source, [*_unknown_annotations(tree, space), *_scripting(tree, space)])
        source = re.sub(r"\s+# (type: ignore|noqa|pragma)\b.*", "", source)
        for used in _free_names(tree):
            if used != name and not hasattr(builtins, used):
                self._bring(used, space, name)
        self.sections[name] = source.strip()
        return name

    def _bring(self, name: str, space: dict[str, Any], user: str) -> None:
        if name not in space:
            raise BundleError(f"{user} uses {name!r}, which its module does not define at its top", code="no-source")
        value = space[name]
        if name in self._objects and self._objects[name] is not value:
            raise BundleError(
                f"the network uses two different things called {name!r}: rename one of them", code="no-source"
            )
        line = _import_of(name, value)
        if line is not None:
            self.imports[name] = line
        elif isinstance(value := _plain_function(value), (types.FunctionType, type)):
            if self.copy(value) != name:
                self.sections[name] = f"{name} = {value.__name__}"
        elif isinstance(value, _SIMPLE):
            self.sections[name] = f"{name} = {literal(value)}"
        else:
            raise BundleError(
                f"{user} uses {name!r}, a {class_text(type(value))}, which a bundle that "
                "needs nothing but torch cannot carry",
                code="no-source",
            )
        self._objects[name] = value


def _plain_function(value: Any) -> Any:
    """The Python function of one that `torch.jit.script` compiled."""
    return original_of(value) or value if isinstance(value, torch.jit.ScriptFunction) else value


def own_classes(source: str) -> dict[str, type]:
    """This package's layers of which a bundle's source holds unchanged copies, by name: those are what passes know."""
    found: dict[str, type] = {}
    for kind in (PConv2d, PDWConv2d, FusedPConv2d):
        library = Library()
        try:
            library.copy(kind)
        except BundleError:  # installed without its source: the bundle's own copy does as well
            continue
        if all(section in source for section in library.sections.values()):
            found[kind.__name__] = kind
    return found


def _unknown_annotations(tree: ast.Module, space: dict[str, Any]) -> list[tuple[int, int, int, int]]:
    """Where annotations stand that name more than torch's and Python's things: start and end, by line and column."""
    cuts = []
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            note, line, column = node.annotation, node.lineno, node.col_offset + len(node.arg.encode())
        elif isinstance(node, ast.FunctionDef) and node.returns:
            note, line, column = node.returns, node.returns.lineno, node.returns.col_offset
        else:
            continue
        if note is not None and _is_unknown(note, space):
            cuts.append((line, column, note.end_lineno or line, note.end_col_offset or column))
    return cuts


def _scripting(tree: ast.Module, space: dict[str, Any]) -> list[tuple[int, int, int, int]]:
    """Where a function is told to be compiled by `torch.jit.script`, which computes the same and wants a file."""
    cuts = []
    for decorator in getattr(tree.body[0], "decorator_list", []):
        first, *rest = ast.unparse(decorator).split(".")
        value = space.get(first)
        for name in rest:
            value = getattr(value, name, None)
        if value is torch.jit.script:
            end = decorator.end_lineno or decorator.lineno, decorator.end_col_offset or 0
            cuts.append((decorator.lineno, decorator.col_offset - 1, *end))
    return cuts


def _is_unknown(annotation: ast.expr, space: dict[str, Any]) -> bool:
    for node in ast.walk(annotation):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return True
        if isinstance(node, ast.Name) and not hasattr(builtins, node.id):
            known = _STANDARD.get(node.id)
            if known is None or (node.id in space and _import_of(node.id, space[node.id]) != known):
                return True
    return False


def _without(source: str, cuts: Iterable[tuple[int, int, int, int]]) -> str:
    """The source without these stretches, and without the `->` before them."""
    lines = source.encode().split(b"\n")
    for first, start, last, end in sorted(cuts, reverse=True):
        before, behind = lines[first - 1][:start], lines[last - 1][end:]
        before = before.rstrip().removesuffix(b"->").rstrip() if before.rstrip().endswith(b"->") else before
        if behind.startswith(b" = ") and not before.endswith(b" "):
            behind = b"=" + behind[3:]  # a default without an annotation has no blanks around
        lines[first - 1 : last] = [before + behind]
    return b"\n".join(lines).decode()


def _is_importable(home: str) -> bool:
    """Whether a bundle may import this module: torch's, or one that comes with Python."""
    top = home.partition(".")[0]
    return top == "torch" or top in sys.stdlib_module_names


def _import_of(name: str, value: Any) -> str | None:
    """The import that binds `name` to `value`, for what is torch's or comes with Python; None for anything else."""
    if isinstance(value, types.ModuleType):
        home = value.__name__
        if not _is_importable(home):
            raise BundleError(
                f"the network's code uses the module {home}: a bundle needs nothing but torch", code="no-source"
            )
        if home == name:
            return f"import {home}"
        parent, _, last = home.rpartition(".")
        return f"from {parent} import {last}" if last == name and parent else f"import {home} as {name}"
    own = getattr(value, "__module__", None) or ""
    homes = ("torch", "torch.nn", "torch.nn.functional", "torch.autograd", own.lstrip("_"), own)
    for home in homes:
        allowed = _is_importable(home) and callable(value)
        if allowed and getattr(sys.modules.get(home), name, None) is value:
            return f"from {home} import {name}"
    return None


def _free_names(tree: ast.Module) -> list[str]:
    """Names that the code reads from its module, without those that only annotations read."""
    annotations = {
        id(inner)
        for node in ast.walk(tree)
        for field in ("annotation", "returns")
        if isinstance(expression := getattr(node, field, None), ast.expr)
        for inner in ast.walk(expression)
    }
    reads: dict[str, None] = {}
    bound: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            if not isinstance(node.ctx, ast.Load):
                bound.add(node.id)
            elif id(node) not in annotations:
                reads[node.id] = None
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node not in tree.body:
            bound.add(node.name)
    return [name for name in reads if name not in bound]
