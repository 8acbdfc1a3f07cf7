"""A fit: what is gathered at a rewritten layer, and how the weights that follow from it are chosen."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import ClassVar

import torch
from torch import Tensor, fx

from .correspondence import Link
from .lockstep import Batch, Lockstep
from .moments import Moments
from .regression import ridge

STRENGTHS = (1e-1, 1e-2, 1e-3)
"""How strongly a fit is drawn towards the inherited weights, in units of a feature's energy: what is tried"""

FOLDS = 2

ROUNDS = 3
"""How often a fit in front of a ReLU is repeated, each time with the freedom that it has below zero"""

ENOUGH_PIXELS, PIXELS_PER_FEATURE = 15_000, 25
"""How many pixels of all images a fit looks at, whichever is more"""

ALL = slice(None)

Solution = tuple[Tensor, ...]
Candidate = Callable[[Moments], Solution]


@dataclass(frozen=True)
class Site:
    """One call of a layer that is fitted.

    Attributes:
        source: the node whose value the layer reads: in the original network at the later calls of a layer that is
            called several times (its inputs cannot be known before its weights are), else in the rewritten one.
        rewritten: which of the two.
        between: nodes between a partial convolution and the pointwise one, which commute with it.
        link: where the output is compared.
    """

    source: fx.Node
    rewritten: bool
    between: tuple[fx.Node, ...]
    link: Link


@dataclass(frozen=True)
class Gain:
    """Squared error relative to the target's energy, before and after a fit.

    It is what was measured on all images in front of a ReLU, elsewhere after fits to one half, measured on the other.
    """

    before: float
    after: float

    def __str__(self) -> str:
        if not math.isfinite(self.before):
            return "not fitted: values on the calibration images are not finite"
        if not self.after < self.before:
            return "fitted: the inherited weights are best"
        return f"fitted: squared error at its place {self.before:.2g} → {self.after:.2g}"


class Fit(ABC):
    """Weights of one or two modules that a target is linear in."""

    def __init__(self, paths: Sequence[str], sites: Sequence[Site]):
        self.paths, self.sites = tuple(paths), tuple(sites)
        self._folds: list[list[Moments]] = [[] for _ in range(FOLDS)]
        self._error = self._energy = 0.0
        self._first = math.nan
        self._best: tuple[float, Solution] | None = None
        self.seen = self.unknowns = 0

    picks: ClassVar[bool] = False
    """Whether features can be made at some pixels alone"""

    @abstractmethod
    def features(self, x: Tensor, pixels: Tensor | None = None) -> Tensor:
        """(1, C, H, W) → (1, F, h, w), in which the layer's output is linear; of some pixels (1, F, pixels, 1)."""

    @abstractmethod
    def start(self) -> Solution:
        """The weights of now."""

    @abstractmethod
    def candidates(self) -> Iterator[Candidate]:
        """What to choose from, besides the start."""

    @abstractmethod
    def fill(self, solution: Solution) -> None:
        """Put a solution into the weights."""

    def linear(self, solution: Solution) -> Tensor:
        """The map (F + 1, O) from features, and the constant one, to outputs."""
        return solution[0]

    def wanted(self, networks: Lockstep, batch: Batch, link: Link) -> Tensor:
        """What the original network has at the place of comparison."""
        return networks.original.wanted(batch, link.origin, link.selection)

    def rows(self, x: Tensor, pixels: Tensor | slice = ALL) -> Tensor:
        """(1, C, H, W) → (pixels, C), float64."""
        return x[0].flatten(1)[:, pixels].T.double()

    def target_rows(self, y: Tensor, pixels: Tensor) -> Tensor:
        """The same for what the layer should give."""
        return self.rows(y, pixels)

    def predicted(self, rows: Tensor) -> Tensor:
        """Outputs of now, from rows of features and the constant one."""
        return rows @ self.linear(self.start())

    @property
    def rounds(self) -> int:
        """How often the images are gone through."""
        return ROUNDS + 1 if any(site.link.clipped for site in self.sites) else 1

    def observe(self, networks: Lockstep, batch: Batch) -> None:
        """Gather one batch."""
        for site in self.sites:
            images = batch[networks.rewritten if site.rewritten else networks.original, site.source]
            offset, wanted = site.link.offset(networks, batch), self.wanted(networks, batch, site.link)
            if offset is not None:
                offset = offset.expand(len(wanted), -1, -1, -1)  # one for all images, such as a parameter
            for index, (image, y) in enumerate(zip(torch.split(images, 1), torch.split(wanted, 1), strict=True)):
                mixing = (*site.between, *site.link.mixing)
                if self.picks and not mixing:
                    pixels = _pixels(batch.seen + index, y, len(self.linear(self.start())), networks.images)
                    x = self.rows(self.features(image, pixels))
                else:
                    features = self.features(image)
                    for node in mixing:
                        features = networks.rewritten.apply(batch, node, features)
                    pixels = _pixels(batch.seen + index, features, features.shape[1], networks.images)
                    x = self.rows(features, pixels)
                y = self.target_rows(y, pixels)
                x = torch.cat([x, x.new_ones(*x.shape[:-1], 1)], dim=-1)
                known = 0 if offset is None else self.target_rows(offset[index : index + 1], pixels)
                got = self.predicted(x) + known
                highest = y
                if site.link.clipped:  # below zero any value will do, with some distance from zero
                    highest = torch.maximum(y, -y.square().mean(-2, keepdim=True).sqrt())
                    y = torch.where(y > 0, y, torch.minimum(got, highest))
                self._energy += float(highest.square().sum())
                self._error += float((got - y).square().sum())
                fold = self._folds[_fold(batch.seen + index)]
                fold[:] = [Moments.sum([*fold, Moments.of(x, y - known)])]

    def update(self, last: bool) -> Gain | None:
        """Fit after a round; the last of several rounds only measures, and the weights that did best are kept."""
        error = self._error / max(self._energy, torch.finfo(torch.float64).tiny)
        scale = max(self._energy, torch.finfo(torch.float64).tiny)
        folds, self._folds = list(chain.from_iterable(self._folds)), [[] for _ in range(FOLDS)]
        self._error = self._energy = 0.0
        if self._best is None:
            self._first = error
        if self._best is None or error < self._best[0]:
            self._best = error, tuple(tensor.clone() for tensor in self.start())
        if not math.isfinite(error) or not all(fold.is_finite for fold in folds):
            if self.rounds > 1:
                self.fill(self._best[1])
            return Gain(math.nan, math.nan)
        if last and self.rounds > 1:
            self.fill(self._best[1])
            return Gain(self._first, self._best[0])
        held_out = self._solve(folds) / scale
        return Gain(self._first, held_out) if last else None

    def _solve(self, folds: Sequence[Moments]) -> float:
        """Fill in the candidate that does best on images that it was not fitted on, unless the weights of now do."""
        whole = Moments.sum(folds)
        self.seen, self.unknowns = whole.count, whole.gram.shape[-1]  # of each output
        rests = [Moments.sum([o for o in folds if o is not fold]) for fold in folds] if len(folds) > 1 else [whole]
        start = self.linear(self.start())
        error, best = sum(fold.error(start) for fold in folds), None
        for candidate in self.candidates():
            held_out = sum(fold.error(self.linear(candidate(rest))) for fold, rest in zip(folds, rests, strict=True))
            if held_out < error:
                best, error = candidate, held_out
        if best is not None:
            solution = best(whole)
            finite = all(bool(torch.isfinite(part.float()).all()) for part in solution)
            if finite and whole.error(self.linear(solution)) <= whole.error(start):
                self.fill(solution)
        return error


class RidgeFit(Fit):
    """Weights that are a linear map themselves."""

    intercept: bool

    def candidates(self) -> Iterator[Candidate]:
        for strength in STRENGTHS:
            yield partial(self._ridge, strength=strength)

    def _ridge(self, moments: Moments, strength: float) -> Solution:
        return (ridge(moments, self.start()[0], strength, intercept=self.intercept),)


def _pixels(image: int, values: Tensor, features: int, images: int) -> Tensor:
    """Which pixels of an image are looked at: all, or as many as a fit of so many features needs."""
    count = values.shape[2] * values.shape[3]
    enough = math.ceil(max(ENOUGH_PIXELS, PIXELS_PER_FEATURE * features) / images)
    if count <= enough:
        return torch.arange(count, device=values.device)
    chosen = torch.randperm(count, generator=torch.Generator().manual_seed(image))[:enough]
    return chosen.to(values.device)


def _fold(image: int) -> int:
    """Which fold an image is in: by chance, because neighbours and every second one may be alike."""
    return image if image < FOLDS else int(torch.randint(FOLDS, (), generator=torch.Generator().manual_seed(image)))
