"""The saved form of a rewritten network: readable source, weights, recipe, key map and reports, in one folder."""

from .files import load, save
from .recipe import architecture_hash, replay
from .source import emit

__all__ = ["architecture_hash", "emit", "load", "replay", "save"]
