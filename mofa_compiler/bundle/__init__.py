"""The saved form of a rewritten network: readable source, weights, recipe, key map and reports, in one folder."""

from ..codegen.source import emit
from .files import load, save
from .recipe import architecture_hash, replay

__all__ = ["architecture_hash", "emit", "load", "replay", "save"]
