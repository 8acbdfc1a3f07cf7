"""Arithmetic on sizes, in terms that mean the same in every engine.

Python's `//` and `%` round towards minus infinity, so `-height % 8` is what lacks to the next multiple of 8. Engines
differ where the dividend is negative: ONNX and OpenVINO divide towards zero, ExecuTorch takes the remainder so, and
OpenVINO has no remainder. Divisions of what is not negative mean the same everywhere.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.fx.experimental.symbolic_shapes import statically_known_true

_OFFSET = 1 << 20
"""Multiples of the divisor that are added to a dividend that may be negative, more than any size is"""

_DIVISIONS = (operator.floordiv, operator.mod)


def plain_divisions(program: ExportedProgram) -> None:
    """Replace a traced network's divisions of sizes by equal ones of sizes that are not negative, in place."""
    graph = program.graph
    for node in list(graph.nodes):
        if node.op != "call_function" or node.target not in _DIVISIONS or not _is_size(node):
            continue
        dividend, divisor = node.args
        if not (statically_known_true(_value(divisor) > 0) or statically_known_true(_value(divisor) < 0)):
            continue
        with graph.inserting_before(node):
            quotient = _floor_division(graph, dividend, divisor)
            if node.target is operator.mod:
                whole = _call(graph, operator.mul, quotient, divisor)
                quotient = _call(graph, operator.sub, dividend, whole)
        node.replace_all_uses_with(quotient)
        graph.erase_node(node)
    program.graph_module.recompile()


def _floor_division(graph: fx.Graph, dividend: Any, divisor: Any) -> fx.Node:
    if statically_known_true(_value(divisor) < 0):
        dividend = _call(graph, operator.neg, dividend)
        divisor = _call(graph, operator.neg, divisor) if isinstance(divisor, fx.Node) else -divisor
    if statically_known_true(_value(dividend) >= 0):
        return _call(graph, operator.floordiv, dividend, divisor)
    offset = _call(graph, operator.mul, divisor, _OFFSET) if isinstance(divisor, fx.Node) else divisor * _OFFSET
    raised = _call(graph, operator.floordiv, _call(graph, operator.add, dividend, offset), divisor)
    return _call(graph, operator.sub, raised, _OFFSET)


def _call(graph: fx.Graph, function: Any, *args: Any) -> fx.Node:
    node = graph.call_function(function, args)
    node.meta["val"] = function(*map(_value, args))
    return node


def _value(argument: Any) -> Any:
    return argument.meta["val"] if isinstance(argument, fx.Node) else argument


def _is_size(node: fx.Node) -> bool:
    """Whether a node is a whole number that depends on the input's size."""
    return isinstance(node.meta.get("val"), torch.SymInt)
