"""How much worse a rewritten network may be than its original, and how much worse it is, on held-out inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, Literal, get_args

from ..base.errors import CalibrationError
from ..base.words import count

Measure = Literal["loss", "psnr", "agreement"]

SMALLEST = 1e-12
"""A mean squared error that counts as none: 120 dB"""

ACCEPTED: Mapping[Measure, float] = {"loss": 0.3, "psnr": 42.0, "agreement": 0.99}
"""Bounds beyond which a network is not saved unasked: twice the error of those that are kept where none is given"""

NEARLY_CLEAN = 45.0
"""dB of PSNR from which on an input has next to nothing that could be restored"""

OPTIONS: Mapping[str, str] = {"loss": "max_loss", "psnr": "min_psnr_to_original", "agreement": "min_agreement"}


@dataclass(frozen=True)
class Bound:
    """The worst that a rewritten network may be, the mean over inputs that were held out.

    Attributes:
        measure: `loss`: dB of PSNR against the clean images that the original has more; `psnr`: dB of PSNR of its
            output against the original's; `agreement`: share of the labels (the largest of the channels, or the sign of
            a single one) that are the original's.
        limit: >= 0 dB, > 0 dB, or 0 to 1: at most that loss, at least that PSNR or agreement.

    Raises:
        CalibrationError: no such measure, or a limit out of its range.
    """

    measure: Measure
    limit: float

    def __post_init__(self) -> None:
        if self.measure not in get_args(Measure):
            known = ", ".join(get_args(Measure))
            raise CalibrationError(f"a bound on {self.measure!r}: must be one of {known}", code="bad-value")
        fits = {"loss": self.limit >= 0, "psnr": self.limit > 0, "agreement": 0 <= self.limit <= 1}
        if not (math.isfinite(self.limit) and fits[self.measure]):
            form = {"loss": "at least 0 dB", "psnr": "above 0 dB", "agreement": "between 0 and 1"}[self.measure]
            raise CalibrationError(f"{OPTIONS[self.measure]}={self.limit}: must be {form}", code="bad-value")

    @property
    def option(self) -> str:
        """The option of the command line that gives it."""
        return f"--{OPTIONS[self.measure].replace('_', '-')}"

    @property
    def allowed(self) -> float:
        """The error at the limit."""
        return self.error(self.limit)

    def error(self, value: float) -> float:
        """What adds up, about, when several layers are changed: errors that are independent of each other.

        Of a loss, the squared error that came to the original's, as part of that; of a PSNR, the squared error, the
        peak being 1; of an agreement, the share of labels that differ.
        """
        if self.measure == "agreement":
            return 1 - value
        return 10 ** (value / 10) - 1 if self.measure == "loss" else 10 ** (-value / 10)

    def value(self, errors: Sequence[float]) -> float:
        """The mean over examples: of losses in dB, of squared errors, of labels in common; of none, the best."""
        errors = errors or (0.0,)
        if not all(map(math.isfinite, errors)):
            return math.inf if self.measure == "loss" else -math.inf
        if self.measure == "loss":
            return fmean(10 * math.log10(max(1 + error, SMALLEST)) for error in errors)
        return 1 - fmean(errors) if self.measure == "agreement" else -10 * math.log10(max(fmean(errors), SMALLEST))

    def holds(self, value: float) -> bool:
        """Whether a network of this value is within the bound."""
        return value <= self.limit if self.measure == "loss" else value >= self.limit

    def said(self, value: float) -> str:
        """A value in words (see `said`)."""
        return said(self.measure, value)

    def __str__(self) -> str:
        limits = {"loss": "at most {:g} dB lost", "psnr": "at least {:g} dB to the original"}
        if self.measure == "agreement":
            return f"at least {100 * self.limit:g} % of the original's labels"
        return limits[self.measure].format(self.limit)


def chain(figures: Mapping[str, float | None], digits: int = 2) -> str:
    """`input 20.20 → original 32.00 → rewritten 31.90`, of those that are known."""
    return " → ".join(f"{name} {value:.{digits}f}" for name, value in figures.items() if value is not None)


def said(measure: Measure, value: float) -> str:
    """A value in words: `0.12 dB lost`, `46.1 dB to the original`, `99.71 % of the labels`."""
    if measure == "loss":
        return f"{abs(value):.2f} dB lost" if value > -0.005 else f"{-value:.2f} dB won"
    return f"{value:.1f} dB to the original" if measure == "psnr" else f"{100 * value:.2f} % of the labels"


@dataclass(frozen=True)
class Quality:
    """What a network is worth on held-out inputs, which nothing was chosen by or fitted to.

    Attributes:
        measure: as of a bound; `limit`: that of the bound that was kept to, None without; `value`: what came of it.
        inputs: how many were held out; `source`: where they come from.
        degraded: PSNR in dB of the network's inputs against the clean images, None without these or where their shapes
            differ; `original`, `rewritten`: of the networks' outputs.
        calibrations: of whole networks, until the bound held.
        where: the inputs in words, where they are not just held out.
    """

    measure: Measure
    limit: float | None
    value: float
    inputs: int
    source: str
    degraded: float | None = None
    original: float | None = None
    rewritten: float | None = None
    calibrations: int = 0
    where: str = ""

    @property
    def bound(self) -> Bound | None:
        """What was asked for."""
        return None if self.limit is None else Bound(self.measure, self.limit)

    @property
    def holds(self) -> bool:
        """Whether the bound holds; without one, that beyond which nothing is saved unasked."""
        return (self.bound or self._accepted).holds(self.value)

    @property
    def is_acceptable(self) -> bool:
        """Whether it may be saved unasked: within what is accepted, or within a bound that was given and is wider."""
        return self.holds or self._accepted.holds(self.value)

    @property
    def said(self) -> str:
        """`0.12 dB lost`, `46.1 dB to the original`, `99.71 % of the labels`."""
        return said(self.measure, self.value)

    @property
    def chain(self) -> str:
        """`input 20.20 → original 32.00 → rewritten 31.90 dB`; empty where no clean images are known."""
        known = chain({"input": self.degraded, "original": self.original, "rewritten": self.rewritten})
        return f"{known} dB" if known else ""

    @property
    def sentence(self) -> str:
        """`0.12 dB lost on 8 held-out inputs (bound: at most 0.15 dB lost): input 20.20 → …`."""
        bound = f" (bound: {self.bound})" if self.bound else ""
        return f"{self.said} on {self.on}{bound}{f': {self.chain}' if self.chain else ''}"

    @property
    def on(self) -> str:
        """`16 held-out inputs`, `24 images of val`."""
        return self.where or count(self.inputs, "held-out input")

    @property
    def doubt(self) -> str:
        """A sentence where the figures show that inputs, weights and degradation do not belong together; else empty."""
        if self.degraded is None or self.original is None:
            return ""
        said = f"{self.degraded:.2f} → {self.original:.2f} dB"
        if self.original <= self.degraded:
            clean = ", which are nearly clean" if self.degraded >= NEARLY_CLEAN else ""
            return (
                f"The original makes its inputs worse{clean} ({said}): are these its trained weights, and is this the "
                "degradation that they were trained for?"
            )
        if self.degraded >= NEARLY_CLEAN:
            return f"The inputs are nearly clean ({said}): is the degradation as strong as it is where it will run?"
        if self.rewritten is not None and self.rewritten <= self.degraded:
            return f"The rewritten network makes its inputs worse ({self.degraded:.2f} → {self.rewritten:.2f} dB)."
        return ""

    @property
    def _accepted(self) -> Bound:
        return Bound(self.measure, ACCEPTED[self.measure])

    def to_data(self) -> dict[str, Any]:
        """Plain data, with the figures in words."""
        words = {"sentence": self.sentence, "doubt": self.doubt, "acceptable": self.is_acceptable}
        return {**asdict(self), **words}
