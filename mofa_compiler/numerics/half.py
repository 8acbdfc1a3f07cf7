"""Half precision: a network whose weights and values have 16 bits, and whose inputs and outputs stay what they were."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from ..base.precision import Precision
from ..graph.call_spec import map_tree

HALVES: dict[Precision, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16}


def in_half(module: nn.Module, precision: Precision) -> nn.Module:
    """The same network converted in place, for inputs of float32, which it converts itself, as it does its outputs."""
    dtype = HALVES[precision]
    module.to(dtype)
    if isinstance(module, fx.GraphModule):  # torch.export goes past hooks of these
        _convert_in_graph(module, dtype)
    else:
        module.register_forward_pre_hook(
            lambda _, args, kwargs: (_narrowed(args, dtype), _narrowed(kwargs, dtype)), with_kwargs=True
        )
        module.register_forward_hook(lambda _, __, output: _widened(output, dtype))
    return module


def _convert_in_graph(module: fx.GraphModule, dtype: torch.dtype) -> None:
    graph = module.graph
    for node in graph.find_nodes(op="placeholder"):
        with graph.inserting_after(node):
            narrowed = graph.call_function(_narrowed, (node, dtype))
        node.replace_all_uses_with(narrowed, delete_user_cb=lambda user, own=narrowed: user is not own)
    output = graph.output_node()
    with graph.inserting_before(output):
        output.args = (graph.call_function(_widened, (output.args[0], dtype)),)
    module.recompile()


def _narrowed(values: Any, dtype: torch.dtype) -> Any:
    return map_tree(values, Tensor, lambda tensor: tensor.to(dtype) if tensor.dtype == torch.float32 else tensor)


def _widened(values: Any, dtype: torch.dtype) -> Any:
    return map_tree(values, Tensor, lambda tensor: tensor.float() if tensor.dtype == dtype else tensor)
