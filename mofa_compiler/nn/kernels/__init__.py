"""Kernels of our own for CUDA, as operators `torch.ops.mofa.*`; importing this needs Triton (extra `cuda`).

A network that has the layers for it (`mofa_compiler.layers.FusedPConv2d`) uses them from then on, also one from a
bundle; without them it computes the same with torch's own operators.
"""

from .partial_conv import fused_pconv

__all__ = ["fused_pconv"]
