"""The front of one network: quality over time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..priced import SAME, Front
from ..summary import conditions
from .pareto_front import of_points

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_UNITS = {
    "loss": "PSNR gained, dB",
    "psnr": "PSNR to the original's output, dB",
    "agreement": "labels that are the original's",
}
_ABOVE = 5.0
"""dB above all others, where the same output stands"""


def front(data: Front) -> Figure:
    """Every network of a front by the time of one run and what it is worth on held-out inputs.

    The original stands at no loss and at full agreement. A PSNR to itself would be infinite: the same output stands a
    little above all others.
    """
    sign, up, top = -1 if data.measure == "loss" else 1, _UNITS[data.measure], float("inf")
    values = [(one, one.value) for one in data.points if one.value is not None]
    if data.measure == "psnr" and any(value >= SAME for _, value in values):
        top = max((value for _, value in values if value < SAME), default=SAME - _ABOVE) + _ABOVE
        up += " (at the top: the same)"
    points = [(one.name, one.ms, sign * min(value, top), one.kind == "original") for one, value in values]
    where = f"ms, {conditions(data.conditions)}"
    return of_points(points, data.model, where, up, up_name=data.measure, up_higher=True)
