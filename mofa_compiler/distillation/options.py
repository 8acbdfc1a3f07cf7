"""What a recovery is asked for, and what it comes to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from dataclasses import dataclass as plain_dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError
from pydantic.dataclasses import dataclass

from ..base.errors import RecoveryError, nearest
from ..base.option_types import FROZEN

STEPS = 1000
"""Steps of a recovery that is given neither steps nor minutes"""

Count = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True, config=FROZEN)
class Options:
    """How a rewritten network is trained.

    Options:
        steps: optimizer steps; 1000 where minutes are not given either. Only a run of given steps can be repeated bit
            for bit.
        minutes: train for so long instead, interruptions left out; the schedule follows the clock.
        batch: examples in a step, over all processes together.
        lr: peak learning rate of AdamW, after a linear warm-up, before a cosine down to 0.
        warmup: share of the run that the warm-up takes.
        weight_decay: of AdamW.
        features: weight of the error at the ends of the stages against the original, mean over the stages, each in
            units of the variance of the original's features there.
        output: weight of the output's error against the original's output.
        target: weight of the output's error against the ground truth, where it is known.
        clip: largest norm of the gradient; 0 for any.
        mixed_precision: no, bf16 or fp16; by default what `accelerate launch` was told.
        ema: decay of the running mean of the weights, which then is what is validated and kept; 0 for none. Early on,
            the mean is over fewer steps.
        batch_statistics: let batch normalization normalize by the batch and update its running statistics, instead of
            keeping them.
        seed: of the order of the examples, and of their places and noise.
        validate_every: steps between validations.
        validation_examples: patches to validate on, of a folder's images.
        save_every: steps between two writes of the state from which an interrupted run goes on.
        workers: processes that prepare examples, 0 for none of their own.
        cpu: leave accelerators alone.
    """

    steps: Count | None = None
    minutes: Positive | None = None
    batch: Count = 8
    lr: Positive = 1e-3
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    weight_decay: Weight = 0.0
    features: Weight = 1.0
    output: Weight = 1.0
    target: Weight = 1.0
    clip: Weight = 1.0
    mixed_precision: Literal["no", "bf16", "fp16"] | None = None
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    batch_statistics: bool = False
    seed: Annotated[int, Field(ge=0)] = 0
    validate_every: Count = 100
    validation_examples: Count = 32
    save_every: Count = 100
    workers: Annotated[int, Field(ge=0)] = 0
    cpu: bool = False

    def __post_init__(self) -> None:
        if self.steps is not None and self.minutes is not None:
            raise RecoveryError("steps and minutes are two ways to say how long: give one of them", code="ambiguous")
        if not self.features + self.output + self.target:
            raise RecoveryError(
                "features, output and target all weigh 0: there is nothing to learn from", code="no-data"
            )

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Options:
        """The options of these names.

        Raises:
            RecoveryError: there is no such option, or it cannot have this value.
        """
        known = cls.__dataclass_fields__
        for name in given:
            if name not in known:
                raise RecoveryError(f"recovery has no option {name!r}{nearest(name, known)}", code="unknown-option")
        try:
            return cls(**given)
        except ValidationError as error:
            first = error.errors()[0]
            raise RecoveryError(
                f"option {first['loc'][0]}={first['input']!r}: {first['msg']}", code="bad-value"
            ) from error

    @property
    def most_steps(self) -> int | None:
        """How many steps there are; None where the clock decides."""
        return None if self.minutes is not None else self.steps or STEPS

    def progress(self, step: int, seconds: float) -> float:
        """Share of the run that is done after so many steps and seconds of training, in [0, 1]."""
        if self.minutes is not None:
            return min(1.0, seconds / (60 * self.minutes))
        return min(1.0, step / (self.steps or STEPS))

    def rate(self, step: int, seconds: float) -> float:
        """Learning rate of the step that begins after so many."""
        begun = self.progress(step + 1, seconds)  # so that the first step is one
        warm = min(1.0, max(begun / self.warmup, 0.01)) if self.warmup else 1.0
        return self.lr * warm * (0.5 + 0.5 * math.cos(math.pi * self.progress(step, seconds)))

    def settings(self) -> dict[str, Any]:
        """The options that decide what comes out, as plain data."""
        indifferent = ("save_every", "workers", "cpu")
        return {name: value for name, value in asdict(self).items() if name not in indifferent}


@plain_dataclass(frozen=True)
class Status:
    """Where a running recovery is; `psnr` is the last one measured, `left` in seconds, None where it is unknown."""

    step: int
    progress: float
    seconds: float
    left: float | None
    loss: float
    psnr: float
    best: float
