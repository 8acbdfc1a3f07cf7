"""Fake quantization: what a layer computes in eight bits, simulated in floats."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..graph.call_spec import map_tree

LEVELS = 255
SIGNED = 127


def quantizable(module: nn.Module) -> list[str]:
    """Paths of the layers that multiply by kernels or matrices."""
    return [
        path
        for path, layer in module.named_modules()
        if path and any(parameter.dim() > 1 for parameter in layer.parameters(recurse=False))
    ]


@contextmanager
def in_eight_bits(module: nn.Module, path: str) -> Iterator[None]:
    """One layer's weights by channel, its inputs and outputs by tensor, with the ranges that they have just then."""
    layer = module.get_submodule(path)
    kernels = [p for p in layer.parameters(recurse=False) if p.dim() > 1]
    axis = 1 if isinstance(layer, nn.modules.conv._ConvTransposeNd) else 0
    before = [kernel.detach().clone() for kernel in kernels]
    with ExitStack() as stack, torch.no_grad():
        stack.callback(layer.register_forward_pre_hook(lambda _, args: _each(args)).remove)
        stack.callback(layer.register_forward_hook(lambda _, __, output: _each(output)).remove)
        try:
            for kernel in kernels:
                kernel.copy_(_by_channel(kernel, axis))
            yield
        finally:
            for kernel, value in zip(kernels, before, strict=True):
                kernel.copy_(value)


def _each(values: Any) -> Any:
    return map_tree(values, Tensor, lambda x: _by_tensor(x) if x.is_floating_point() and x.numel() else x)


def _by_tensor(x: Tensor) -> Tensor:
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    scale = max((high - low) / LEVELS, torch.finfo(torch.float32).tiny)
    return torch.fake_quantize_per_tensor_affine(x, scale, round(-low / scale), 0, LEVELS)


def _by_channel(kernel: Tensor, axis: int) -> Tensor:
    scales = kernel.abs().amax([dim for dim in range(kernel.dim()) if dim != axis]) / SIGNED
    scales = scales.float().clamp_min(torch.finfo(torch.float32).tiny)
    zeros = torch.zeros_like(scales, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(kernel, scales, zeros, axis, -SIGNED, SIGNED)
