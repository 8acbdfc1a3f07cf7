"""Whether a ratio of times says anything: its interval, widened by what a control shows of the machine's noise.

The control is a network timed against itself in the same rounds: its ratio would be 1 but for noise.
"""

from __future__ import annotations

from collections.abc import Sequence


def noise(control: Sequence[float]) -> float:
    """How far from 1 the control's 95 % interval reaches: a share of the time that shows nothing."""
    low, high = control
    return max(high - 1, 1 - low, 0.0)


def widened(interval: Sequence[float], control: Sequence[float] | None) -> tuple[float, float]:
    """The interval of a ratio, wider on both sides by the noise; as it is where no control is known of it."""
    low, high = interval
    share = noise(control) if control else 0.0
    return low * (1 - share), high * (1 + share)


def verdict(interval: Sequence[float], control: Sequence[float]) -> str:
    """`faster` or `slower`, of what the ratio divides; `inside the noise` where the widened interval holds 1."""
    low, high = widened(interval, control)
    return "faster" if high < 1 else "slower" if low > 1 else "inside the noise"
