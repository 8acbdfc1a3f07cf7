"""Channels taken away: the cheapest ones by brute force, and what the others take up."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mofa_compiler.weights import ChannelMoments, take_up, with_channels
from mofa_compiler.weights.removal import EXACTLY, Dense, Seen, effect, removal_order
from tests.calibration.small import distance


def correlated(channels: int, rank: int, count: int = 400) -> Tensor:
    """(count, channels), float64: mixes of `rank` sources and a little of their own."""
    torch.manual_seed(0)
    mixed = torch.randn(count, rank) @ torch.randn(rank, channels) + 0.3 * torch.randn(count, channels)
    return (mixed + torch.randn(channels)).double()


def lost(layer: nn.Linear, x: Tensor, gone: list[int]) -> float:
    """Energy of what the best affine fit from the other channels leaves of a layer's output."""
    kept = [index for index in range(x.shape[1]) if index not in gone]
    rest = torch.cat([x[:, kept], torch.ones(len(x), 1).to(x)], 1)
    y = x[:, gone] @ layer.weight.detach().double()[:, gone].T
    return float((y - rest @ torch.linalg.lstsq(rest, y).solution).square().sum() / len(x))


@pytest.mark.parametrize("width", [1, 2])
def test_greedy_removal_takes_the_cheapest_each_time(width: int) -> None:
    x, layer = correlated(12, 4), nn.Linear(12, 5)
    blocks = torch.arange(12).view(-1, width)
    seen = Seen(ChannelMoments.of(x, last=True).covariance(layer), effect(layer), blocks)
    order = removal_order([seen], 3)
    gone: list[int] = []
    for number in order:
        costs = {
            other: lost(layer, x, [*gone, *block])
            for other, block in enumerate(blocks.tolist())
            if not set(block) & set(gone)
        }
        assert number == min(costs, key=costs.__getitem__)
        gone += blocks[number].tolist()


def test_what_several_layers_read_counts_for_all() -> None:
    x, layers = correlated(6, 6), (nn.Linear(6, 3), nn.Linear(6, 3))
    with torch.no_grad():
        for index, layer in enumerate(layers):
            layer.weight[:, [2, 4]] *= 1e-3
            layer.weight[:, index] = 0
    blocks = torch.arange(6)[:, None]
    seen = [Seen(ChannelMoments.of(x, last=True).covariance(layer), effect(layer), blocks) for layer in layers]
    assert removal_order(seen[:1], 1) == [0]
    assert set(removal_order(seen, 2)) == {2, 4}


LAYERS: dict[str, Dense] = {
    "linear": nn.Linear(6, 5),
    "pointwise": nn.Conv2d(6, 5, 1),
    "padded": nn.Conv2d(6, 5, 3, padding=1),
    "reflected": nn.Conv2d(6, 5, 3, padding=1, padding_mode="reflect", bias=False),
    "transposed": nn.ConvTranspose2d(6, 5, 2, 2),
}


@pytest.mark.parametrize("name", LAYERS)
def test_mixes_of_the_others_are_taken_up(name: str) -> None:
    torch.manual_seed(0)
    layer = LAYERS[name].double()
    x = torch.randn(3, 6, 9, 8, dtype=torch.float64)
    x[:, 5] = 2 * x[:, 0] - x[:, 3]
    if name in ("linear", "pointwise"):
        x[:, 2] = 0.7  # whose place a bias takes
    kept = torch.tensor([0, 1, 3, 4] if name in ("linear", "pointwise") else [0, 1, 2, 3, 4])
    last = name == "linear"
    x = x.movedim(1, -1) if last else x
    outputs = layer.weight.shape[1 if name == "transposed" else 0]
    new = with_channels(layer, [(("weight",), 0 if name == "transposed" else 1, kept)], outputs)
    assert isinstance(new, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d))
    take_up(layer, new, ChannelMoments.of(x, last=last), kept)
    with torch.no_grad():
        assert distance(new(x.index_select(-1 if last else 1, kept)), layer(x)) < 1e3 * EXACTLY


def test_moments_of_parts_are_those_of_the_whole() -> None:
    x = torch.randn(4, 3, 5, 6)
    parts, whole = [ChannelMoments.of(one, last=False) for one in x.split(1)], ChannelMoments.of(x, last=False)
    total = parts[0] + parts[1] + parts[2] + parts[3]
    torch.testing.assert_close(total.gram, whole.gram)
    torch.testing.assert_close(total.total, whole.total)
    assert total.count == whole.count == 4 * 30
    order = torch.tensor([2, 0])
    assert torch.equal(whole.at(order).gram, ChannelMoments.of(x[:, order], last=False).gram)
