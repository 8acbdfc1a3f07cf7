"""What was measured of a network, as reports say it: trainings, decisions and times."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, JsonValue, model_validator

from ..base.precision import Precision
from .part import Interval, Number, Part


class Point(Part):
    """A validation during training."""

    step: int
    seconds: float
    loss: Number
    psnr: Number


class Recovery(Part):
    """A training by distillation since the rewrite; PSNR in dB of the validation examples."""

    steps: int
    seconds: float
    psnr_before: Number
    psnr_after: Number
    psnr_original: Number
    """Of the original against the ground truth; null where the original's output is what is compared with"""
    best_step: int
    """The step whose weights were kept; 0 where none was better than the start"""
    history: tuple[Point, ...]
    data: dict[str, JsonValue]
    settings: dict[str, JsonValue]


class Place(Part):
    """Where something was measured."""

    engine: str
    version: str
    processor: str
    threads: int
    input: str | tuple[tuple[int, ...], ...]
    """A shape such as `1x3x256x256`, or the shapes of all inputs"""
    precision: Precision = "fp32"


class Conditions(Place):
    """The same, of decisions."""

    torch: str


class Alternative(Part):
    """One thing that a group of layers could become, timed."""

    name: str
    ms: Number
    """Of the piece of the network around the layer; null where it could not be measured"""
    ratio: Number
    """To the original piece's"""
    interval: Interval | None
    problem: str
    """Why it was not measured"""
    worth: Number = None
    """What the network is worth with this alone, in the unit of the bound; null where that was not measured"""


class Decision(Part):
    """What was chosen for layers that are alike."""

    paths: tuple[str, ...] = Field(min_length=1)
    layer: str
    chosen: str
    reason: str
    alternatives: tuple[Alternative, ...] = Field(min_length=1)
    """The first is the original"""

    @model_validator(mode="after")
    def _chosen_is_known(self) -> Self:
        if self.chosen not in [one.name for one in self.alternatives]:
            raise ValueError(f"{self.chosen!r} was chosen, which is none of the alternatives")
        return self

    @property
    def original(self) -> Alternative:
        """What the layers are without a rewrite."""
        return self.alternatives[0]

    @property
    def choice(self) -> Alternative:
        """What was chosen."""
        return next(one for one in self.alternatives if one.name == self.chosen)


class Compared(Part):
    """A whole network against the original."""

    name: str
    ms: float
    original_ms: float
    ratio: float
    interval: Interval
    """95 %, of the ratio"""
    control: Interval
    """Of the original against itself in the same rounds: the noise"""


class Quality(Part):
    """What a network is worth on inputs that nothing was chosen by or fitted to."""

    measure: Literal["loss", "psnr", "agreement"]
    """dB lost against clean images, dB to the original's output, or share of its labels"""
    limit: Number
    """Of the bound; null where there is none"""
    value: Number
    inputs: int
    source: str
    degraded: Number
    """PSNR of the inputs against the clean images, in dB; null where none are known"""
    original: Number
    rewritten: Number
    calibrations: int
    """Of whole networks, until the bound held"""
    where: str = ""
    """The inputs in words, where they are not just held out"""
    sentence: str
    doubt: str = ""
    """A sentence where the figures show that inputs, weights and degradation do not belong together"""
    acceptable: bool = True
    """Whether it lost so little that it may be saved unasked"""


class Decisions(Part):
    """What was decided by measurement on a target."""

    conditions: Conditions
    layers: tuple[Decision, ...]
    networks: tuple[Compared, ...]
    """The original without what no rewrite of these layers alone can beat"""
    chosen: str
    sentence: str
    """All of it in words"""
    quality: Quality | None = None
    floating: tuple[str, ...] = ()
    """Layers that stay in float, where the rest is quantized"""

    @property
    def final(self) -> Compared | None:
        """The network that was chosen; None where the original was, whose time is compared with nothing."""
        return next((one for one in self.networks if one.name == self.chosen), None)


class Measurement(Place):
    """What `mofa measure --record` timed; medians in ms."""

    original_ms: float
    rewritten_ms: float
    ratio: float
    """The second divided by the first"""
    interval: Interval
    """95 %, of the ratio"""
    verdict: str
    """`faster`, `slower` or `inside the noise`"""
    control: Interval
    """Of the original against itself in the same rounds: the noise"""
