"""Names of nodes: how messages write them, and generated code that reads those that are no identifiers."""

from __future__ import annotations

import functools
import threading
from typing import Any

from torch import fx
from torch.fx import graph as fx_graph

from ..base.spelling import attribute


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


_LOCK = threading.RLock()


class NamingCodeGen(fx.graph.CodeGen):
    """torch.fx's generator of code, with another way of saying `self.conv` where the name is `a"b`."""

    def _gen_python_code(self, *args: Any, **kwargs: Any) -> Any:
        # The function is looked up in its module. What others generate in the meantime is right, too.
        with _LOCK:
            theirs = fx_graph._format_target
            fx_graph._format_target = _target
            try:
                return super()._gen_python_code(*args, **kwargs)
            finally:
                fx_graph._format_target = theirs


def new_graph() -> fx.Graph:
    """An empty graph for modules of any name."""
    return naming(fx.Graph())


def naming(graph: fx.Graph) -> fx.Graph:
    """The graph itself, which takes modules of any name from now on."""
    graph.set_codegen(NamingCodeGen())
    for node in graph.nodes:
        if node.name == "self":  # of a layer that is called so: its value would hide the module
            node._rename("self_value")
    graph._graph_namespace.create_name("self", None)
    return graph


def _target(base: str, target: str) -> str:
    return functools.reduce(attribute, target.split("."), base)
