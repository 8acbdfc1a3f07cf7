"""Choices made by measurement: which layers to rewrite, how, and in which form, on the engine that will run them."""

from ..result.decisions import Alternative, Decision, Decisions
from ..rewriting.target import Conditions, Target

__all__ = ["Alternative", "Conditions", "Decision", "Decisions", "Target"]
