"""What was decided, and on which measurements: plain data for reports and recipes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..base.significance import verdict, widened
from ..rewriting.target import Conditions
from .quality import Quality

TOLD = "as told"
"""What a network is called for which nothing was decided: a roadmap was carried out as it stands"""


@dataclass(frozen=True)
class Alternative:
    """One thing that a group of layers could become.

    Attributes:
        name: what it is, such as `pointwise-first + shrink-kernels`.
        ms: median time of the piece of the network that it stands in; None where it could not be measured.
        ratio: that divided by the time of the original piece.
        interval: 95 % interval of the ratio.
        problem: why it was not measured.
        worth: what the network is worth with this alone, in the unit of the bound, where there is one.
    """

    name: str
    ms: float | None = None
    ratio: float | None = None
    interval: tuple[float, float] | None = None
    problem: str = ""
    worth: float | None = None


@dataclass(frozen=True)
class Decision:
    """What was chosen for layers that are alike: same operations around them, same shapes, same choices.

    Attributes:
        paths: the layers.
        layer: signature of one.
        chosen: name of the alternative.
        reason: why, in one line.
        alternatives: all that were compared, the original first.
    """

    paths: tuple[str, ...]
    layer: str
    chosen: str
    reason: str
    alternatives: tuple[Alternative, ...]


@dataclass(frozen=True)
class Comparison:
    """A whole network against the original.

    Attributes:
        name: which one.
        ms: median; `original_ms`: that of the original in the same run.
        ratio: the first divided by the second, with its 95 % `interval`.
        control: the original against itself in the same run: interval of that ratio.
    """

    name: str
    ms: float
    original_ms: float
    ratio: float
    interval: tuple[float, float]
    control: tuple[float, float]

    @property
    def is_faster(self) -> bool:
        """Whether it is faster than the original beyond the noise."""
        return verdict(self.interval, self.control) == "faster"


@dataclass(frozen=True)
class Decisions:
    """All of a network's."""

    conditions: Conditions
    layers: tuple[Decision, ...]
    networks: tuple[Comparison, ...]
    chosen: str
    """Which of `networks` it became, or `original`"""
    quality: Quality | None = None
    """What came of a bound, where there was one"""
    floating: tuple[str, ...] = ()
    """Layers that stay in float, where the rest is quantized"""

    @property
    def final(self) -> Comparison | None:
        """The measurement of what was chosen."""
        return next((one for one in self.networks if one.name == self.chosen), None)

    @property
    def sentence(self) -> str:
        """What was traded for what, in one line."""
        final, conditions = self.final, str(self.conditions)
        if final is None:
            return f"no rewrite {self._wanted}is faster than the original on {conditions}: it was left as it is"
        low, high = widened(final.interval, final.control)
        lost = f" for {self.quality.said}" if self.quality else ""
        time = f"{final.ratio:.2f} of the original's time ({low:.2f} to {high:.2f}){lost} on {conditions}"
        if self.layers or self.chosen != TOLD:
            return time
        if self.quality is None and final.is_faster:
            return f"{time}: faster"  # what it lost is unknown
        return f"{time}: {'worth' if self.is_worth_it else 'not worth'} shipping"

    @property
    def is_worth_it(self) -> bool:
        """Whether what came of it is faster beyond the noise, and within its bound."""
        return self.final is not None and self.final.is_faster and self.quality is not None and self.quality.holds

    @property
    def _wanted(self) -> str:
        return f"within {self.quality.bound} " if self.quality and self.quality.bound else ""

    def to_data(self) -> dict[str, Any]:
        """Plain data."""
        quality = None if self.quality is None else self.quality.to_data()
        return {**asdict(self), "quality": quality, "sentence": self.sentence}
