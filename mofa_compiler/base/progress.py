"""Progress of long work, told to whoever asked for it."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called before each step with what it is, how many are done, and how many there are."""
