"""The front of one network: quality over time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..front import Front
from ..summary import conditions
from .pareto_front import of_points

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_UNITS = {
    "loss": "PSNR gained, dB",
    "psnr": "PSNR to the original's output, dB",
    "agreement": "labels that are the original's",
}


def front(data: Front) -> Figure:
    """Every network of a front by the time of one run and what it is worth on held-out inputs.

    The original stands at no loss and at full agreement; its PSNR to itself is infinite, so that it is left out there.
    """
    sign = -1 if data.measure == "loss" else 1
    points = [
        (one.name, one.ms, sign * one.value, one.kind == "original") for one in data.points if one.value is not None
    ]
    where = f"ms, {conditions(data.conditions)}"
    return of_points(points, data.model, where, _UNITS[data.measure], up_name=data.measure, up_higher=True)
