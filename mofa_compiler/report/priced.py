"""The data of a front: networks made of one original within several bounds; schema `mofa-front/1`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ..result.quality import Bound, Measure
from .dominance import not_dominated
from .measured import Conditions
from .part import Interval, Number, Part

SCHEMA = "mofa-front/1"
ORIGINAL, EXACT = "original", "exact"

SAME = 120.0
"""dB, from which on an output counts as the original's: its figures end there"""


class Point(Part):
    """One network of a front."""

    name: str
    kind: Literal["original", "front", "other"]
    bundle: str
    """Its folder, beside the front's report; empty for the original"""
    limit: Number
    """Of the bound that it was made within; null for the original, exact lowerings alone, and other bundles"""
    value: Number
    """What it is worth on the held-out inputs, in the unit of the measure"""
    ms: float
    ratio: float
    """To the original's time in the same race"""
    interval: Interval
    """95 %, of the ratio"""
    parameters: int
    macs: int
    memory: Number
    """MiB that a run takes at its peak; null where that is not known"""
    trained: bool = False
    """Whether it was trained on after it was made"""


class Front(Part):
    """Networks made of one original within several bounds, measured in one race."""

    schema_: Literal["mofa-front/1"] = Field(alias="schema")
    model: str
    measure: Literal["loss", "psnr", "agreement"]
    held_out: int
    """How many inputs the values were measured on"""
    source: str
    """Where these come from"""
    degraded: Number
    """PSNR of the inputs against the clean images, in dB; null where none are known"""
    original: Number
    """The same of the original's outputs"""
    conditions: Conditions
    control: Interval
    """Of the original against itself in the race: the noise"""
    points: tuple[Point, ...]
    """The original first"""
    notes: tuple[str, ...] = ()

    @property
    def best(self) -> tuple[Point, ...]:
        """The points that no other one dominates, in time and in value, from the best quality on.

        Two bounds may have come to the same network, whose times differ by noise alone: it is there once, with the
        shortest.
        """
        different: dict[tuple[object, ...], Point] = {}
        for one in sorted(self.points, key=lambda point: point.ms):
            different.setdefault((one.kind == "original", one.value, one.macs, one.parameters), one)
        points = list(different.values())
        kept = not_dominated([(one.ms, -error_of(self.measure, one)) for one in points], y_higher=True)
        return tuple(sorted((points[index] for index in kept), key=lambda one: -one.ms))


def error_of(measure: Measure, one: Point) -> float:
    return float("inf") if one.value is None else Bound(measure, 1.0).error(one.value)
