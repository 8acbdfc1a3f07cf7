"""Two networks on a validation set: what each comes to, and which measure suits them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from ..base.errors import VerificationError, one_line
from ..base.words import count
from ..data.degradations import Pair
from ..data.validation import Named, ValidationImages, centre
from ..graph.call_spec import CallSpec, tensor_leaves
from ..numerics.error_sums import Figures
from ..numerics.psnr import psnrs
from ..numerics.running import run
from ..result.quality import Bound, Measure, Quality
from ..result.rewrite import Rewrite

MULTIPLE = 32
"""What the sides of an image are cut down to multiples of, where the network does not take them as they are"""

Tell = Callable[[str, int, int], None]


def suits(original: float | None, degraded: float | None, given: Tensor | None, output: Tensor | None) -> Measure:
    """`loss` where clean images are known that the output is nearer to than the input; for labels `agreement`.

    Labels are outputs of another number of channels than the input, at least two, or of whole numbers.

    Args:
        original: mean PSNR of the original's outputs in dB; None where no clean images are known.
        degraded: that of its inputs.
        given: an input (B, C, ...).
        output: what the original makes of it.
    """
    if original is not None and (degraded is None or original > degraded):
        return "loss"
    if output is None or output.dim() < 2 or not output.numel():
        return "psnr"
    labelled = given is not None and output.shape[1] not in (1, given.shape[1] if given.dim() > 1 else 1)
    return "agreement" if labelled or not output.is_floating_point() else "psnr"


def labels(output: Tensor, middle: float) -> Tensor:
    """The largest of the channels, or of a single one whether it is above the middle; whole numbers are labels."""
    if not output.is_floating_point():
        return output
    return output.argmax(1) if output.dim() > 1 and output.shape[1] > 1 else output > middle


def validated(
    rewrite: Rewrite,
    images: str | Path | ValidationImages,
    degradation: str | None = None,
    progress: Tell | None = None,
) -> Rewrite:
    """A rewrite with what its network is worth now on a validation set.

    Args:
        rewrite: what was done.
        images: as for `ValidationImages`.
        degradation: as there.
        progress: told before every image.

    Raises:
        DataError: the images cannot be read.
        VerificationError: the network takes something other than one image, or no part of one of these.
    """
    specs = rewrite.inputs
    if len(specs) != 1 or len(specs[0].shape) != 4:
        raise VerificationError(
            f"a validation set is for networks of one image, this takes {', '.join(map(str, specs))}",
            code="wrong-input",
        )
    _, channels, height, width = specs[0].shape
    if not isinstance(images, ValidationImages):
        images = ValidationImages(images, channels=channels, degradation=degradation)
    networks = rewrite.original.program.graph_module, rewrite.model
    found = validate(*networks, images, sides=(height, width), name=str(images), progress=progress)
    return replace(rewrite, validation=found)


def validate(
    original: nn.Module,
    rewritten: nn.Module,
    images: Iterable[Named],
    *,
    sides: tuple[int, int],
    name: str,
    progress: Tell | None = None,
) -> Quality:
    """What a rewritten network is worth on images, one of which is held at a time.

    Args:
        original: takes an image.
        rewritten: the other network.
        images: a network that does not take one whole gets as much of its centre as it takes.
        sides: height and width that both networks surely take.
        name: what to call the images: `photos, gaussian:25`.
        progress: told before every image.

    Raises:
        VerificationError: there is no image, or a network takes no part of one, or returns no tensor.
    """
    tell = progress or (lambda *_: None)
    found = _Found()
    total = len(images) if isinstance(images, Sized) else 0
    for index, one in enumerate(images):
        tell(one.name, index, total)
        found.add(*_outputs((original, rewritten), one, sides))
    if not found.number:
        raise VerificationError(f"{name} holds no image to compare outputs on", code="no-data")
    return found.quality(name)


def _outputs(networks: Sequence[nn.Module], one: Named, sides: tuple[int, int]) -> tuple[Pair, list[Tensor], bool]:
    """The pair, or the part of it that both networks take, what each returns, and whether it is the whole."""
    problem = None
    for pair in _forms(one.pair, sides):
        try:
            outputs = [next(tensor_leaves(_run(network, pair.input)), None) for network in networks]
        except Exception as error:  # whatever a network raises at a size that it was not made for
            problem = problem or error
            continue
        if None in outputs:
            raise VerificationError(f"on {one.name} a network returns no tensor", code="wrong-output")
        return pair, [output for output in outputs if output is not None], pair is one.pair
    why = f"({one_line(problem)})" if problem else f"it is smaller than {sides[0]}x{sides[1]}"
    raise VerificationError(f"{one.name} is not taken by the network, whole or in part {why}", code="wrong-input")


def _forms(pair: Pair, sides: tuple[int, int]) -> Iterator[Pair]:
    """The whole, its sides cut to multiples, and the size that networks were captured at."""
    yield pair
    height, width = pair.input.shape[1:]
    cut = height // MULTIPLE * MULTIPLE, width // MULTIPLE * MULTIPLE
    if min(cut) and cut != (height, width):
        yield centre(pair, *cut)
    if height >= sides[0] and width >= sides[1] and sides not in ((height, width), cut):
        yield centre(pair, *sides)


def _run(network: nn.Module, image: Tensor) -> Any:
    weight = next((p for p in network.parameters() if p.is_floating_point()), image)
    return run(network, CallSpec((image[None].to(weight),), {}))


@dataclass
class _Found:
    """What was seen so far."""

    number: int = 0
    parts: int = 0
    degraded: list[float] = field(default_factory=list)
    original: list[float] = field(default_factory=list)
    rewritten: list[float] = field(default_factory=list)
    squared: Figures = field(default_factory=Figures)
    differing: dict[float, list[float]] = field(default_factory=lambda: {0.0: [], 0.5: []})
    first: tuple[Tensor, Tensor] | None = None
    finite: bool = True

    def add(self, pair: Pair, outputs: Sequence[Tensor], whole: bool) -> None:
        before, after = (output.cpu() for output in outputs)
        self.number += 1
        self.parts += not whole
        self.first = self.first or (pair.input[None], before)
        self.finite = self.finite and bool(torch.isfinite(after).all())
        for one, kept in ((pair.input[None], self.degraded), (before, self.original), (after, self.rewritten)):
            if pair.target.numel() and one.shape == pair.target[None].shape:
                kept.append(float(psnrs(one.float(), pair.target[None], pair.levels, 1.0)))
        self.squared.add(before.flatten(), after.flatten())
        for middle, shares in self.differing.items():
            shares.append(float((labels(before, middle) != labels(after, middle)).double().mean()))

    def quality(self, name: str) -> Quality:
        degraded, original, rewritten = (self._mean(one) for one in (self.degraded, self.original, self.rewritten))
        assert self.first is not None
        measure = suits(original, degraded, *self.first)
        middle = 0.5 if self.squared.low >= 0 and self.squared.high <= 1 else 0.0  # of probabilities, or of logits
        value = Bound(measure, 0.5).value([float("inf")])
        if self.finite and measure == "loss" and original is not None and rewritten is not None:
            value = original - rewritten
        elif self.finite and measure == "agreement":
            value = 1 - fmean(self.differing[middle])
        elif self.finite:
            value = min(self.squared.psnr(self.squared.peak), 120.0)
        cut = f", of {self.parts} the centre" if self.parts else ""
        where = f"{count(self.number, 'image')} of {name}{cut}"
        return Quality(measure, None, value, self.number, name, degraded, original, rewritten, where=where)

    def _mean(self, found: Sequence[float]) -> float | None:
        """Of all images; None where one of them has no such figure."""
        return fmean(found) if len(found) == self.number else None
