"""`apply`, and what it returns."""

from __future__ import annotations

from .applying import apply, apply_captured
from .result import Result
from .start import Start, start

__all__ = ["Result", "Start", "apply", "apply_captured", "start"]
