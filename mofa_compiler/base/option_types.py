"""What passes' options are made of."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field

FROZEN = ConfigDict(extra="forbid", defer_build=True)
"""Configuration of every pass's pydantic dataclass: an unknown option is an error."""


def _as_written(value: Any) -> Any:
    """0.3 as 3/10, not as the binary fraction next to it."""
    if isinstance(value, bool):
        raise ValueError("a truth value is no portion")
    return str(value) if isinstance(value, float) else value


Portion = Annotated[Fraction, BeforeValidator(_as_written), Field(gt=0, le=1)]
"""A share of the channels; TOML and Python may say 0.25, "1/4" or Fraction(1, 4)."""


def as_tuple(value: str | tuple[str, ...]) -> tuple[str, ...]:
    """One name, or several."""
    return (value,) if isinstance(value, str) else value


def convolved_channels(channels: int, portion: Fraction) -> tuple[int, str]:
    """How many of `channels` a portion is, and a note where that is no whole number and had to be rounded.

    Rounded is to the nearest of 1, 2, 4 and the multiples of 4, which is what engines compute at once; upwards from the
    middle between two of them.
    """
    exact = channels * portion
    if exact.denominator == 1:
        return int(exact), ""
    choices = [n for n in (1, 2, *range(4, channels + 1, 4)) if n <= channels]
    convolved = min(choices, key=lambda n: (abs(n - exact), -n))
    return convolved, f"{portion} of {channels} channels rounded to {convolved}"
