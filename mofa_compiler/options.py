"""What passes' options are made of."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Any

from pydantic import ConfigDict, Field

FROZEN = ConfigDict(extra="forbid")
"""Configuration of every pass's pydantic dataclass: an unknown option is an error."""

Portion = Annotated[Fraction, Field(gt=0, le=1)]
"""A share of the channels; TOML and Python may say 0.25, "1/4" or Fraction(1, 4)."""


def as_tuple(value: Any) -> Any:
    """One name, or several."""
    return (value,) if isinstance(value, str) else value


def convolved_channels(channels: int, portion: Fraction) -> tuple[int, str]:
    """How many of `channels` a portion is, at least one, and a note where that had to be rounded."""
    exact = channels * portion
    convolved = max(1, round(exact))
    return convolved, "" if convolved == exact else f"{portion} of {channels} channels rounded to {convolved}"
