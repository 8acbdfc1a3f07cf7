"""Layers as passes see them, by their stable name; written in `mofa_compiler.analysis.layers`."""

from .analysis.layers import Layer

__all__ = ["Layer"]
