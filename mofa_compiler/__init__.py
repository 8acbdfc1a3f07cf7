"""A staged model-transformation compiler for U-Net-like PyTorch networks."""

from .bundle import load
from .capture import capture
from .compiler import Result, apply
from .program import Program
from .roadmap import Roadmap

__all__ = ["Program", "Result", "Roadmap", "apply", "capture", "load"]
