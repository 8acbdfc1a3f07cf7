"""The saved form of a rewritten network: readable source, weights, recipe, key map and reports, in one folder."""

from .files import load, save

__all__ = ["load", "save"]
