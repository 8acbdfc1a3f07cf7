"""Channels taken away where that costs least, and their work given to those that stay.

What a layer reads is known by second moments, of calibration images or of random fields. Optimal brain surgeon (Hassibi
and Stork, 1993), a channel at a time: what the best linear fit of a layer's output from the others loses without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import torch
from torch import Tensor, fx, nn

from ..analysis.hidden import Hidden, Reading
from .kernels import fill
from .linear import passes_shift
from .prior import covariance

Dense = nn.Conv2d | nn.ConvTranspose2d | nn.Linear

EXACTLY = 1e-9
"""Of a channel's mean energy: added to all, so that what is left without the others has an inverse"""

MEASURED = 1e-4
"""The same where moments are of images: what varies less on these may vary more on others"""


@dataclass(frozen=True)
class ChannelMoments:
    """Sums over pixels of the products of channels, `gram` (C, C), and of the channels, `total` (C,), in float64."""

    gram: Tensor
    total: Tensor
    count: int

    @classmethod
    def of(cls, x: Tensor, *, last: bool) -> ChannelMoments:
        """Of a value with its channels in dimension 1, or in the last one."""
        rows = (x if last else x.movedim(1, -1)).flatten(0, -2).double()
        return cls(rows.T @ rows, rows.sum(0), len(rows))

    def __add__(self, other: ChannelMoments) -> ChannelMoments:
        return ChannelMoments(self.gram + other.gram, self.total + other.total, self.count + other.count)

    def at(self, places: Tensor) -> ChannelMoments:
        """Of these channels, in this order."""
        places = places.to(self.gram.device)
        return ChannelMoments(self.gram[places][:, places], self.total[places], self.count)

    def covariance(self, layer: Dense) -> Tensor:
        """Of the channels as a layer reads them: about their means where it has a bias that can take these up."""
        second = self.gram / self.count
        return second - torch.outer(self.mean(layer), self.mean(layer))

    def mean(self, layer: Dense) -> Tensor:
        """What the layer's bias can take up of a channel; zeros at the border are not the mean."""
        inside = isinstance(layer, nn.Linear) or passes_shift(layer)
        return self.total / self.count if inside and layer.bias is not None else torch.zeros_like(self.total)


def dearest(
    hidden: Hidden,
    layers: Mapping[str, nn.Module],
    moments: Mapping[fx.Node, ChannelMoments],
    count: int,
    strength: float = EXACTLY,
) -> list[int]:
    """The places in the orbit of the `count` classes of hidden channels that it costs most to do without, in order.

    Args:
        hidden: the channels.
        layers: what takes them up, by path.
        moments: of what these read, before it is pooled.
        count: how many classes are to stay.
        strength: as for `removal_order`.
    """
    seen = []
    for path in dict.fromkeys(reading.path for reading in hidden.measured):
        layer, readings = layers[path], [reading for reading in hidden.measured if reading.path == path]
        assert isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear))
        blocks = torch.from_numpy(hidden.blocks(readings[0].seen)).to(layer.weight.device)
        seen.append(Seen(at_all_calls(readings, moments).covariance(layer), effect(layer), blocks))
    gone = removal_order(seen, len(hidden.orbit) - count, strength)
    return sorted(set(range(len(hidden.orbit))).difference(gone))


def at_all_calls(readings: Sequence[Reading], moments: Mapping[fx.Node, ChannelMoments]) -> ChannelMoments:
    """Of what one layer reads, wherever it is called."""
    return reduce(add, (moments[reading.seen] for reading in readings))


@dataclass(frozen=True)
class Seen:
    """Channels as one layer sees them.

    Attributes:
        covariance: (C, C), of what it reads.
        effect: (C, C), the inner products of what it makes of each.
        blocks: (classes, channels of each), which stay or go together.
    """

    covariance: Tensor
    effect: Tensor
    blocks: Tensor


def effect(layer: Dense) -> Tensor:
    """(C, C): inner products, over outputs and pixels, of what a layer makes of its input channels."""
    weight = _by_input(layer).double()
    if weight.dim() == 2:
        return weight @ weight.T
    taps = weight.flatten(2)  # (C, outputs, taps)
    correlation = covariance(weight.shape[-2], weight.shape[-1]).to(taps)
    return torch.einsum("iot,ts,jos->ij", taps, correlation, taps)


def removal_order(layers: Sequence[Seen], count: int, strength: float = EXACTLY) -> list[int]:
    """The `count` classes that cost least to take away, one after the other, the cheapest first.

    `strength` is how much of a channel's mean energy is added to all of them: what hardly varies in these moments may
    do so elsewhere.
    """
    states = [_Removal(layer, strength) for layer in layers]
    gone: list[int] = []
    for _ in range(count):
        costs = torch.stack([state.costs() for state in states]).sum(0)
        costs[gone] = torch.inf
        gone.append(int(costs.argmin()))
        for state in states:
            state.remove(gone[-1])
    return gone


class _Removal:
    """What one layer's best fit loses with each class, kept up to date as classes go."""

    def __init__(self, layer: Seen, strength: float):
        system = layer.covariance.clone()
        system.diagonal().add_(strength * system.diagonal().mean().clamp_min(torch.finfo(system.dtype).tiny))
        self.inverse = _inverse(system)
        self.effect, self.blocks = layer.effect.clone(), layer.blocks

    def costs(self) -> Tensor:
        rows, columns = self.blocks[:, :, None], self.blocks[:, None, :]
        inverse, effect = self.inverse[rows, columns], self.effect[rows, columns]
        if self.blocks.shape[1] == 1:
            costs: Tensor = (effect / inverse.clamp_min(torch.finfo(inverse.dtype).tiny)).flatten()
            return costs
        lost: Tensor = (torch.linalg.pinv(inverse, hermitian=True) * effect).sum((1, 2))
        return lost

    def remove(self, number: int) -> None:
        block = self.blocks[number]
        pivot = torch.linalg.pinv(self.inverse[block][:, block], hermitian=True)
        share = self.inverse[:, block] @ pivot  # of each channel in what goes, to be made up for by it
        through = self.effect[block]
        half = through - 0.5 * (through[:, block] @ share.T)
        self.effect.addmm_(share, half, alpha=-1).addmm_(half.T, share.T, alpha=-1)
        self.inverse.addmm_(share, self.inverse[block], alpha=-1)


def take_up(old: Dense, new: Dense, moments: ChannelMoments, kept: Tensor, strength: float = EXACTLY) -> None:
    """Fill a layer that reads only some of the channels: the others as far as those that stay explain them."""
    weight = _by_input(old).double()
    gone = torch.ones(len(weight), dtype=torch.bool, device=weight.device)
    gone[kept] = False
    system = moments.covariance(old)
    within = system[kept][:, kept]
    within.diagonal().add_(strength * system.diagonal().mean().clamp_min(torch.finfo(system.dtype).tiny))
    across = system[kept][:, gone]
    share = _inverse(within) @ across if bool(across.any()) else across  # constants have nothing to do with the others
    lost = weight[gone]
    found = weight[kept] + (share @ lost.flatten(1)).view(len(kept), *lost.shape[1:])
    fill(new.weight, found.movedim(0, 0 if isinstance(old, nn.ConvTranspose2d) else 1))
    if old.bias is not None and new.bias is not None:
        mean = moments.mean(old)
        whole = lost.flatten(2).sum(2) if lost.dim() > 2 else lost
        constant = (mean[gone] - share.T @ mean[kept]) @ whole
        fill(new.bias, old.bias.detach().double() + constant)


def _inverse(system: Tensor) -> Tensor:
    """Of a symmetric positive definite matrix; the pseudoinverse where rounding has left it not definite."""
    factor, failed = torch.linalg.cholesky_ex(system)
    inverse: Tensor = torch.linalg.pinv(system, hermitian=True) if bool(failed) else torch.cholesky_inverse(factor)
    return inverse


def _by_input(layer: Dense) -> Tensor:
    """The weight with input channels first: (C, outputs) or (C, outputs, height, width)."""
    weight = layer.weight.detach()
    return weight if isinstance(layer, nn.ConvTranspose2d) else weight.transpose(0, 1)
