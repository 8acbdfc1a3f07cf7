"""Multiply-accumulates (MACs) of graph nodes, counted as `torch.utils.flop_counter` counts them (its FLOPs halved)."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from ..nn.partial_conv import PartialConv2d
from . import recurrent
from .program import Program
from .shape_propagation import evaluate

# Functions and methods that the flop counter knows a formula for; everything else costs no MACs.
_COUNTED = frozenset(
    [
        "conv1d",
        "conv2d",
        "conv3d",
        "conv_transpose1d",
        "conv_transpose2d",
        "conv_transpose3d",
        "linear",
        "bilinear",
        "matmul",
        "bmm",
        "mm",
        "addmm",
        "baddbmm",
        "einsum",
        "tensordot",
        "scaled_dot_product_attention",
        "__matmul__",
    ]
)


def conv_macs(module: _ConvNd, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
    """MACs of one convolution; a transposed one is counted at its input resolution, as torch does."""
    pixels = torch.Size((input_shape if isinstance(module, _ConvTransposeNd) else output_shape)[2:]).numel()
    return input_shape[0] * pixels * module.weight.numel()


def module_macs(module: nn.Module, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int | None:
    """MACs of a module whose formula is known without running it, else None."""
    if isinstance(module, PartialConv2d):
        return conv_macs(
            module.conv, _channels(input_shape, module.convolved), _channels(output_shape, module.convolved)
        )
    if isinstance(module, _ConvNd):
        return conv_macs(module, input_shape, output_shape)
    if not any(True for _ in module.parameters()):
        return 0
    if isinstance(module, (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.PReLU, nn.Embedding)):
        return 0
    return None


def node_macs(node: fx.Node, program: Program) -> int:
    """MACs of one call; 0 for an opaque part that cannot be counted without running it."""
    if node.op == "call_module":
        module = program.modules[str(node.target)]
        value = node.meta["val"]
        if recurrent.is_recurrent(module) and isinstance(x := _input(node), Tensor):
            return recurrent.macs(module, tuple(x.shape))
        if isinstance(value, Tensor) and node.args and isinstance(node.args[0], fx.Node):
            known = module_macs(module, tuple(node.args[0].meta["val"].shape), tuple(value.shape))
            if known is not None:
                return known
    elif node.op == "call_function" and function_name(node) in recurrent.FUNCTIONS:
        values = fx.map_arg(node.args, lambda source: source.meta["val"])
        if (counted := recurrent.function_macs(tuple(values))) is not None:
            return counted
    elif node.op not in ("call_function", "call_method") or function_name(node) not in _COUNTED:
        return 0
    from torch.utils.flop_counter import FlopCounterMode  # which imports triton, too slow for where nothing needs it

    try:
        with FlopCounterMode(display=False) as counter:
            evaluate(node, program)
    except RuntimeError:
        return 0  # an opaque part that looks at values, which meta tensors do not have
    return int(counter.get_total_flops()) // 2


def _input(node: fx.Node) -> Any:
    """The value of a layer's (first) input."""
    given = node.args[0] if node.args else node.kwargs.get("input")
    return given.meta["val"] if isinstance(given, fx.Node) else None


def function_name(node: fx.Node) -> str:
    """The bare name of a called function or method, without the underscore of an in-place method."""
    name = str(node.target) if node.op == "call_method" else getattr(node.target, "__name__", "")
    return name if name.endswith("__") else name.rstrip("_")


def vanilla_macs(
    module: nn.Module, mixes_to: int | None, input_shape: tuple[int, ...], output_shape: tuple[int, ...]
) -> int:
    """The paper's estimate (Figure 4): MACs as if the convolution were a vanilla one.

    A depthwise, grouped or partial convolution counts with all its input and output channels; with a pointwise
    convolution behind it (`mixes_to` channels) the two count as one vanilla convolution.
    """
    conv = cast(Any, module.conv if isinstance(module, PartialConv2d) else module)
    pixels = torch.Size((input_shape if isinstance(conv, _ConvTransposeNd) else output_shape)[2:]).numel()
    kernel = torch.Size(conv.kernel_size).numel()
    return input_shape[0] * pixels * kernel * input_shape[1] * (mixes_to or output_shape[1])


def _channels(shape: tuple[int, ...], channels: int) -> tuple[int, ...]:
    return (shape[0], channels, *shape[2:])
