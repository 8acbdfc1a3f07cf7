"""Recoveries: what training a rewritten network by distillation brought."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Point:
    """A recovery after so many steps and seconds.

    `loss` is the mean of the training loss since the point before, NaN at the start; `psnr` is that of the validation
    examples, in dB.
    """

    step: int
    seconds: float
    loss: float
    psnr: float


@dataclass(frozen=True)
class Recovery:
    """What `recover` returns.

    Attributes:
        steps, seconds: of training, all sessions of an interrupted run together.
        psnr_before, psnr_after: of the validation examples, in dB, with the weights it began with and those it kept.
        psnr_original: the original's; None where there is no ground truth, and the original is what is compared with.
        best_step: the step whose weights were kept, 0 for those it began with.
        history: what was measured, from the start on.
        data: what was trained on.
        settings: the options that decide what comes out.
    """

    steps: int
    seconds: float
    psnr_before: float
    psnr_after: float
    psnr_original: float | None
    best_step: int
    history: tuple[Point, ...]
    data: Mapping[str, Any]
    settings: Mapping[str, Any]

    @property
    def improved(self) -> bool:
        """Whether anything was better than the start."""
        return self.best_step > 0

    def to_data(self) -> dict[str, Any]:
        """As plain data, as `report.json` holds it."""
        return asdict(self)
