"""What becomes of a layer's weights, in the words that diffs, key maps, reports and recipes hold."""

from __future__ import annotations

from enum import StrEnum


class Fate(StrEnum):
    """Where weights come from, or what became of them. It is text: JSON holds the word."""

    EXACT = "exact"
    """The layer computes what it did"""
    MERGED = "merged"
    """It computes what it and its neighbours did, from the product of their weights, rounded"""
    INHERITED = "inherited"
    """In closed form from the old ones"""
    FRESH = "fresh"
    """Random"""
    COMPENSATED = "compensated"
    """The same layer, adjusted for a rewritten neighbour"""
    CALIBRATED = "calibrated"
    """Fitted on example inputs"""
    REORDERED = "reordered"
    """The same weights, channels permuted"""
    REMOVED = "removed"
    """The layer is gone"""
    KEPT = "kept"
    """A key of the original that is as it was"""
    REWRITTEN = "rewritten"
    """A key of the original whose layer another one replaces"""
    DROPPED = "dropped"
    """A key of the original that has no successor"""


FITTED = (Fate.CALIBRATED, Fate.REORDERED)
"""Weights that calibration changed, in a layer that stays"""

ADJUSTED = (Fate.COMPENSATED, *FITTED)
"""Weights that changed, in a layer that stays"""
