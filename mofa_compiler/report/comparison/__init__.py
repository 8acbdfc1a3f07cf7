"""Several bundles side by side: sizes, times and quality, and where their layers differ."""

from .data import compare
from .document import document

__all__ = ["compare", "document"]
