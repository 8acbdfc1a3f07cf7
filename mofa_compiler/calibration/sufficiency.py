"""Whether there were enough calibration inputs for what was fitted to them."""

from __future__ import annotations

from collections.abc import Collection

from ..base.words import count

TOO_FEW = 1.5
"""How many times more of the error may be left on what was held out than on what was fitted to"""

STARVED = 0.25
"""The part of the fitted layers from which on it is told that they had few pixels: a channel attention always has"""

_FEW = "fewer pixels than unknowns"


def few_pixels(pixels: int, unknowns: int) -> str:
    """What is added to a layer's note where it was fitted on fewer pixels than one of its outputs has unknowns."""
    return f"; {_FEW} ({pixels} of {unknowns})" if pixels < unknowns else ""


def too_few(fitted: float, held_out: float, notes: Collection[str]) -> str:
    """What shows that there were too few inputs; empty where there were enough.

    Args:
        fitted: the part of the inherited weights' error that is left on inputs that were fitted to.
        held_out: the same on others.
        notes: of the layers that were fitted.
    """
    said = []
    starved = sum(_FEW in note for note in notes)
    if starved and starved >= STARVED * len(notes):
        said.append(f"{starved} of {count(len(notes), 'layer')} fitted on {_FEW}")
    if held_out > TOO_FEW * fitted:
        parts = f"{100 * fitted:.3g} % of the error", f"{100 * held_out:.3g} %"
        said.append(f"{parts[0]} is left on what was fitted to, {parts[1]} on what was held out")
    return ", ".join(said)
