"""The analysed program, by its stable name; written in `mofa_compiler.analysis`."""

from .analysis.network import Network

__all__ = ["Network"]
