"""How far the rewritten network is from the original and from the truth: to train on, and in dB."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..base.errors import RecoveryError
from .batches import Batch
from .options import Options

Values = tuple[list[Tensor], list[Tensor]]
"""What a `Tapped` network returns: outputs and features"""

_NOTHING = 1e-12
"""Variance of the original's features, relative to that of the largest, below which a stage says nothing"""


@dataclass(frozen=True)
class Scales:
    """The units that errors are measured in, one a stage and one an output tensor; 0 for a stage that says nothing."""

    features: tuple[float, ...]
    outputs: tuple[float, ...]

    @classmethod
    def measure(cls, original: Values, batch: Batch) -> Scales:
        """From what the original does with some examples.

        The unit of a stage is the variance of its features. The unit of an output is the square of what it differs by
        from the truth, or, without a truth, from the input where it has its shape; else it is its variance.
        """
        outputs, features = original
        variances = [_variance(feature) for feature in features]
        least = _NOTHING * max(variances, default=0.0)
        known = batch.targets or tuple(arg for arg in batch.args if isinstance(arg, Tensor))
        units = []
        for index, output in enumerate(outputs):
            near = known[index] if index < len(known) and known[index].shape == output.shape else None
            apart = 0.0 if near is None else float((output.double() - near.double()).square().mean())
            units.append(apart or _variance(output) or 1.0)
        return cls(tuple(v if v > least else 0.0 for v in variances), tuple(units))


@dataclass(frozen=True)
class Loss:
    """The weighted sum of the errors: squares, each in units of its scale, mean over stages and over outputs."""

    options: Options
    scales: Scales

    def __call__(self, rewritten: Values, original: Values, batch: Batch) -> Tensor:
        outputs, features = rewritten
        pairs = zip(features, original[1], self.scales.features, strict=True)
        stages = [_error(got, wanted) / scale for got, wanted, scale in pairs if scale]
        pairs = zip(outputs, original[0], self.scales.outputs, strict=True)
        total = self.options.output * _mean([_error(got, wanted) / scale for got, wanted, scale in pairs])
        if stages:
            total = total + self.options.features * _mean(stages)
        if batch.targets:
            truths = zip(outputs, batch.targets, self.scales.outputs, strict=False)
            total = total + self.options.target * _mean([_error(got, truth) / scale for got, truth, scale in truths])
        return total


def check_targets(outputs: Sequence[Tensor], batch: Batch) -> None:
    """Refuse targets that are none of these outputs."""
    if len(batch.targets) > len(outputs):
        raise RecoveryError(
            f"an example has {len(batch.targets)} targets, the network {len(outputs)} outputs", code="wrong-output"
        )
    for output, target in zip(outputs, batch.targets, strict=False):
        if output.shape != target.shape:
            got, wanted = ("x".join(map(str, tensor.shape[1:])) for tensor in (output, target))
            raise RecoveryError(f"a target is {wanted}, and the network returns {got}", code="wrong-output")


def _error(got: Tensor, wanted: Tensor) -> Tensor:
    return (got.float() - wanted.float()).square().mean()


def _mean(values: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(values)).mean()


def _variance(values: Tensor) -> float:
    variance = float(values.double().var(correction=0))
    return variance if math.isfinite(variance) else 0.0
