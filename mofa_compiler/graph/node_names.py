"""How messages name the nodes of a graph."""

from __future__ import annotations

from torch import fx


def path_of(node: fx.Node) -> str:
    """The path of the innermost module whose call made a node, empty for the network itself."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]) if stack else ""


def describe(node: fx.Node) -> str:
    """`layer 'enc.0'`, or `chunk() in 'enc.1'`."""
    if node.op == "call_module":
        return f"layer {node.target!r}"
    inside = f" in {path!r}" if (path := path_of(node)) else ""
    return f"{getattr(node.target, '__name__', node.target)}(){inside}"
