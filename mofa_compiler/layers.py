"""Layers of rewritten networks, by their stable name; they are written in `mofa_compiler.nn`."""

from .nn.partial_conv import FusedPConv2d, PConv2d, PDWConv2d

__all__ = ["FusedPConv2d", "PConv2d", "PDWConv2d"]
