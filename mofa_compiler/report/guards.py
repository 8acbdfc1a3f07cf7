"""What was decided for the example's size while tracing: each a guard in the graph, which raises at other sizes."""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx

from ..frontend import GUARDS
from ..graph.macs import function_name
from .model import Guard

_INFIX = {
    **{"add": "+", "sub": "-", "mul": "*", "truediv": "/", "floordiv": "//", "mod": "%", "pow": "**"},
    **{"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="},
}
_LONGEST_EXPRESSION = 60


def guards(graph: fx.Graph) -> list[Guard]:
    """Each with the module whose forward decided, what it fixes, and the line of source, empty where not known."""
    calls = (node for node in graph.nodes if node.op == "call_function")
    return [_guard(node) for node in calls if node.target in GUARDS]


def module_of(node: fx.Node) -> str:
    """The module whose forward made a node; "" for the network itself."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]) if stack else ""


def _guard(node: fx.Node) -> Guard:
    value, fixed, *_ = node.args
    expression = _expression(value)
    subject = f"len({expression})" if function_name(node) == "check_length" else expression
    return Guard(module=module_of(node), fixes=f"{subject} is {fixed!r}", line=node.meta.get("line", ""))


def _expression(value: Any, depth: int = 6) -> str:
    """A graph value as the Python that made it, cut short where it is long: `x.shape[2] % 8 != 0`."""
    written = _written(value, depth)
    return written if len(written) <= _LONGEST_EXPRESSION else f"{written[: _LONGEST_EXPRESSION - 1]}…"


def _written(value: Any, depth: int) -> str:
    if not isinstance(value, fx.Node):
        return repr(value)
    if value.op not in ("call_function", "call_method") or depth == 0 or isinstance(value.meta.get("val"), Tensor):
        return value.name
    name = function_name(value).strip("_")
    arguments = [_written(argument, depth - 1) for argument in value.args]
    if name == "getattr":
        return f"{arguments[0]}.{value.args[1]}"
    if name == "getitem":
        return f"{arguments[0]}[{arguments[1]}]"
    if name in _INFIX:
        nested = (f"({words})" if " " in words else words for words in arguments)
        return f" {_INFIX[name]} ".join(nested)
    if value.op == "call_method":
        return f"{arguments[0]}.{name}({', '.join(arguments[1:])})"
    return f"{name}({', '.join(arguments)})"
