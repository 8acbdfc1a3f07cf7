"""How messages name the nodes of a graph."""

from __future__ import annotations

from torch import fx


def describe(node: fx.Node) -> str:
    """`layer 'enc.0'`, or `chunk() in 'enc.1'`."""
    if node.op == "call_module":
        return f"layer {node.target!r}"
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    inside = f" in {stack[-1][0]!r}" if stack and stack[-1][0] else ""
    return f"{getattr(node.target, '__name__', node.target)}(){inside}"
