"""Held-out inputs: what a network is worth on examples that nothing was chosen by or fitted to."""

from __future__ import annotations

import hashlib
import math
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from torch import Tensor, nn

from ..analysis.network import Network
from ..base.errors import CalibrationError, MofaError
from ..base.torch_state import threads
from ..calibration import Calibration
from ..calibration.batches import gather
from ..data import CalibrationImages, Pair
from ..graph.call_spec import CallSpec, map_tree, tensor_leaves
from ..numerics.error_sums import Figures
from ..numerics.psnr import psnrs, range_of
from ..numerics.running import run, values
from ..result.quality import Bound, Measure, Quality
from ..verification.validation import labels, suits

COUNT, SIDE = 32, 128
"""Images that quality is measured on, of so many pixels a side, and fewer where they are larger"""

FEW = 2
"""What is measured often is measured on one of so many of them"""

LARGEST = 256
"""Side of the largest: beyond, they say little more"""

ASIDE = 8
"""One batch of so many is held out of those that are given as tensors"""

DEFAULTS: dict[Measure, float] = {"loss": 0.15, "psnr": 45.0, "agreement": 0.995}
"""Bounds where none is given: dB lost; where no clean images are known, dB to the original, or labels in common"""


class HeldOut:
    """Some of a calibration's inputs, and what the original makes of them.

    `side`: of the images that it will run on, in pixels.

    Attributes:
        calibration: without them.
        calls: those inputs.
        pace: seconds in which the original runs on a single value of an input.
        bound: the one given, or else what suits the network: `loss` where clean images are known that its output is
            nearer to than its input, `agreement` where its output has another number of channels, at least two, or
            whole numbers, and `psnr` otherwise.

    Raises:
        CalibrationError, DataError: there is a single input, or a bound on the loss and no clean images.
    """

    def __init__(self, network: Network, calibration: Calibration, bound: Bound | None = None, side: int | None = None):
        images = calibration.batches
        self._clean: list[tuple[Tensor, Tensor]] = []
        rest: Iterable[Any]
        if isinstance(images, CalibrationImages):
            rest, pairs = _pairs(network, images, min(side or images.size, LARGEST))
            given = [pair.input[None] for pair in pairs]
            if images.degradation is not None:
                self._clean = [(pair.target[None], pair.levels) for pair in pairs]
        else:
            rest, given = _apart([images] if isinstance(images, Tensor) else list(images))
        self._source = str(images) if isinstance(images, CalibrationImages) else "given"
        if bound is not None and bound.measure == "loss" and not self._clean:
            raise CalibrationError(
                "max_loss is measured against clean images: calibrate on a folder of them, or on synthetic ones, with "
                "a degradation (--calibrate DIR --degrade gaussian:25; CalibrationImages(..., degradation=...)), or "
                "bound the distance to the original's own output (min_psnr_to_original, min_agreement)",
                code="needs-option",
            )
        self.calibration = replace(calibration, batches=rest)
        self.calls = _calls(network, given)
        self._run(network.program.graph_module, self.calls[:1])  # the first run takes longer
        began = time.perf_counter()
        self._outputs = self._run(network.program.graph_module, self.calls)
        self.pace = (time.perf_counter() - began) / max(_size(self.calls), 1)
        self._original, self._degraded = self._psnr(self._outputs), self._psnr_of_inputs()
        if bound is not None and bound.measure == "loss" and self._original is None:
            raise CalibrationError(
                "max_loss compares the output with the clean image, and they have different shapes: bound the distance "
                "to the original's own output (min_psnr_to_original, min_agreement)",
                code="wrong-output",
            )
        self.bound = bound or Bound(measure := self._measure(), DEFAULTS[measure])

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the inputs, of those that are fitted to, and of the original's outputs, and so of its weights."""
        found = hashlib.sha256(repr(self.calibration.description).encode())
        batches = self.calibration.batches
        fitted = [] if isinstance(batches, CalibrationImages) else [*map(_arguments, batches)]
        for tensor in tensor_leaves([*map(_arguments, self.calls), *fitted, *self._outputs]):
            found.update(repr((tuple(tensor.shape), tensor.dtype)).encode())
            found.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return found.hexdigest()

    @property
    def seconds(self) -> float:
        """In which the original runs on them."""
        return self.pace * _size(self.calls)

    @property
    def fitted_seconds(self) -> float:
        """In which it runs on what is fitted to."""
        batches = self.calibration.batches
        return (
            self.image_seconds * batches.crops if isinstance(batches, CalibrationImages) else self.pace * _size(batches)
        )

    @property
    def image_seconds(self) -> float:
        """In which it runs on one of these, or on a batch where images cannot be told apart."""
        batches = self.calibration.batches
        first = next(iter(batches))
        return self.pace * (first[0].numel() if isinstance(batches, CalibrationImages) else _size([first]))

    def errors(self, network: nn.Module, *, few: bool = False) -> list[float]:
        """What a network adds to the error of each input's output (see `Bound.error`), or infinity for not finite.

        `few`: of some inputs alone, for what is asked often.
        """
        calls = self.calls[: -(-len(self.calls) // FEW)] if few else self.calls
        return self._errors(self._run(network, calls))

    def quality(self, network: nn.Module, calibrations: int = 0, bound: Bound | None = None) -> Quality:
        """All figures of a network."""
        return self.judged(network, calibrations, bound)[0]

    def judged(
        self, network: nn.Module, calibrations: int = 0, bound: Bound | None = None
    ) -> tuple[Quality, list[float]]:
        """All figures of a network, and what it adds to the error of each input's output."""
        bound, outputs = bound or self.bound, self._run(network, self.calls)
        errors = self._errors(outputs)
        quality = Quality(
            bound.measure,
            bound.limit,
            bound.value(errors),
            len(self.calls),
            self._source,
            degraded=_mean(self._degraded),
            original=_mean(self._original),
            rewritten=_mean(self._psnr(outputs)),
            calibrations=calibrations,
        )
        return quality, errors

    def _run(self, network: nn.Module, calls: Sequence[CallSpec]) -> list[Any]:
        """On one thread where inputs are small: on a busy machine more of them wait for one another."""
        leaves = tensor_leaves([*map(_arguments, self.calls[:1])])
        small = all(leaf.shape[-2:].numel() <= LARGEST**2 for leaf in leaves if leaf.dim() == 4)
        with threads(1) if small else nullcontext():
            return [run(network, call) for call in calls]

    def _errors(self, outputs: Sequence[Any]) -> list[float]:
        if not all(bool(torch.isfinite(values("the network", output)).all()) for output in outputs):
            return [math.inf] * len(outputs)
        if self.bound.measure == "loss":
            before, after = self._original, self._psnr(outputs)
            assert before is not None and after is not None
            return [self.bound.error(one - other) for one, other in zip(before[: len(after)], after, strict=True)]
        compared = self._differing if self.bound.measure == "agreement" else self._squared
        return compared(outputs)

    def _measure(self) -> Measure:
        given, output = (next(tensor_leaves(one), None) for one in (self.calls[0].args, self._outputs[0]))
        return suits(_mean(self._original), _mean(self._degraded), given, output)

    def _psnr(self, outputs: Sequence[Any]) -> list[float] | None:
        """dB against the clean images, one each; None where none are known, or of other shapes."""
        return self._against_clean([next(tensor_leaves(output)) for output in outputs])

    def _psnr_of_inputs(self) -> list[float] | None:
        return self._against_clean([next(tensor_leaves(call.args)) for call in self.calls])

    def _against_clean(self, found: Sequence[Tensor]) -> list[float] | None:
        clean = self._clean[: len(found)]
        if not clean or [one.shape for one in found] != [wanted.shape for wanted, _ in clean]:
            return None
        peak = range_of([wanted for wanted, _ in self._clean])
        pairs = zip(found, clean, strict=True)
        return [float(psnrs(one.cpu(), wanted, levels, peak)) for one, (wanted, levels) in pairs]

    def _squared(self, outputs: Sequence[Any]) -> list[float]:
        """Mean squared error of all outputs to the original's, whose range is 1."""
        figures, found = Figures(), []
        for one, other in zip(self._outputs[: len(outputs)], outputs, strict=True):
            before, expected = figures.error, values("the original", one)
            figures.add(expected, values("the network", other))
            found.append((figures.error - before) / max(expected.numel(), 1))
        return [error / figures.peak**2 if error else 0.0 for error in found]

    def _differing(self, outputs: Sequence[Any]) -> list[float]:
        """Share of the first output's labels that are not the original's."""
        both = zip(self._outputs[: len(outputs)], outputs, strict=True)
        pairs = [[next(tensor_leaves(one)) for one in pair] for pair in both]
        low, high = min(float(one.min()) for one, _ in pairs), max(float(one.max()) for one, _ in pairs)
        middle = 0.5 if low >= 0 and high <= 1 else 0.0  # of probabilities, or of logits
        return [float((labels(one, middle) != labels(other, middle)).double().mean()) for one, other in pairs]


def surely(errors: Sequence[float]) -> float:
    """The mean and its standard error: what further inputs of the kind will hardly exceed."""
    if not all(map(math.isfinite, errors)):
        return math.inf
    spread = stdev(errors) / math.sqrt(len(errors)) if len(errors) > 1 else 0.0
    return fmean(errors) + spread if errors else 0.0


def _size(values: Any) -> int:
    """How many numbers they hold."""
    return sum(leaf.numel() for leaf in tensor_leaves([*map(_arguments, values)]))


def _mean(found: Sequence[float] | None) -> float | None:
    return None if found is None else fmean(found)


def _arguments(batch: Any) -> Any:
    return (batch.args, dict(batch.kwargs)) if isinstance(batch, CallSpec) else batch


def _pairs(network: Network, images: CalibrationImages, side: int) -> tuple[CalibrationImages, list[Pair]]:
    """Crops near in size to what the network will run on, as far as it takes them.

    PSNR is that of an image, and small crops of one are worth less and more than all of it: what a dark or smooth crop
    loses nobody sees in the whole. And what pools over the image sees another one.
    """
    if side > images.size:
        rest, pairs = images.held_out(COUNT, side)
        try:
            run(network.program.graph_module, _calls(network, [pairs[0].input[None]])[0])
        except (MofaError, RuntimeError):  # it was captured for one size alone, or takes no other
            pass
        else:
            return rest, pairs[: max(8, COUNT * SIDE // pairs[0].input.shape[-1])]
    return images.held_out(COUNT)


def _calls(network: Network, given: Iterable[Any]) -> list[CallSpec]:
    """Inputs as calls, in the network's precision."""
    like = next((t for t in network.program.state().values() if t.is_floating_point()), torch.empty(0))
    with tempfile.TemporaryDirectory(prefix="mofa-held-out-") as folder:
        return list(gather(given, network, Path(folder), like, network.program.inputs))


def _apart(batches: list[Any]) -> tuple[list[Any], list[Any]]:
    """Every eighth batch is held out; of a single batch the last eighth of its examples."""
    if len(batches) > 1:
        held = batches[::ASIDE]
        return [batch for index, batch in enumerate(batches) if index % ASIDE], held
    leaves = list(tensor_leaves(batches))
    size = min((len(leaf) if leaf.dim() else 1 for leaf in leaves), default=0)
    if size < 2:
        raise CalibrationError(
            "there is a single calibration input, and one to fit to and one to judge by are needed: give more",
            code="no-data",
        )
    left = size - -(-size // ASIDE)
    return [_rows(batches[0], slice(left))], [_rows(batches[0], slice(left, None))]


def _rows(batch: Any, rows: slice) -> Any:
    return map_tree(batch, Tensor, lambda tensor: tensor[rows] if tensor.dim() else tensor)
