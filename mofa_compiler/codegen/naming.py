"""Names for the values and parameters in emitted source."""

from __future__ import annotations

import ast
import builtins
import inspect
import keyword
import textwrap
from collections.abc import Collection, Iterable

from torch import nn

from ..base import spelling

POOL = ("x", "y", "z", "u", "v", "w")
"""Names of intermediate results that have no better one"""

KEYWORDS = frozenset(keyword.kwlist)

SIZES = ("batch", "channels", "height", "width")

RESERVED = frozenset(dir(builtins)) - {"input"} | {"self", "torch", "nn", "F", "Tensor", "math"} | set(keyword.kwlist)


def identifier(text: str, taken: Collection[str] = ()) -> str:
    """A valid name like `text` that is not taken: `conv`, then `conv_2`, ...; `0.conv` becomes `_0_conv`."""
    name = spelling.identifier(text)
    if name.startswith("__"):  # in a class that would be another one
        name = f"_{name.lstrip('_')}"
    if name in RESERVED:
        name += "_"
    return unique(name, taken)


def unique(name: str, taken: Collection[str]) -> str:
    candidate, number = name, 2
    while candidate in taken:
        candidate, number = f"{name}_{number}", number + 1
    return candidate


def parameter_names(kind: type[nn.Module], count: int) -> list[str] | None:
    """The names that `kind.forward` gives its `count` inputs, in the order in which it uses them, or None."""
    try:
        parameters = list(inspect.signature(kind.forward).parameters.values())[1:]
        names = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        if count == 1 and names and names[0] not in RESERVED:
            return names[:1]
        if len(names) != count:
            return None
        (function,) = ast.parse(textwrap.dedent(inspect.getsource(kind.forward))).body
    except (OSError, TypeError, ValueError, SyntaxError):
        return None
    assert isinstance(function, ast.FunctionDef)
    read = (name for statement in function.body for name in _in_order_of_use(statement))
    used = list(dict.fromkeys(name for name in read if name in names))
    return used if len(used) == count and not RESERVED & set(used) else None


def _in_order_of_use(node: ast.AST) -> Iterable[str]:
    """Names that the code under a node reads, in the order in which operations get to them.

    In `torch.cat([skip, self.up(x)])` that is x before skip.
    """
    direct: list[str] = []

    def visit(inner: ast.AST) -> Iterable[str]:
        for child in ast.iter_child_nodes(inner):
            if isinstance(child, ast.Name):
                direct.append(child.id)
            elif isinstance(child, (ast.List, ast.Tuple, ast.Starred, ast.keyword)):
                yield from visit(child)
            else:
                yield from _in_order_of_use(child)

    yield from visit(node)
    yield from direct
