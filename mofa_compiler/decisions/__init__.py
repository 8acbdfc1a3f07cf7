"""Choices made by measurement: which layers to rewrite, how, and in which form, on the engine that will run them."""

from .record import Alternative, Decision, Decisions
from .target import Conditions, Target

__all__ = ["Alternative", "Conditions", "Decision", "Decisions", "Target"]
