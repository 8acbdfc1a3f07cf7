"""Several bundles side by side: sizes, times and quality, and where their layers differ."""

from .data import compare
from .html import render as html
from .markdown import render as markdown
from .terminal import print_comparison

__all__ = ["compare", "html", "markdown", "print_comparison"]
