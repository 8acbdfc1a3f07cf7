"""Kernels of our own for CUDA, by their stable name: importing this registers `torch.ops.mofa.*`."""

from .nn.kernels import fused_pconv

__all__ = ["fused_pconv"]
