"""Choosing which channels a partial convolution convolves: those that a scalar can least replace."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from ..analysis.channels import Channels, Positions
from ..analysis.network import Network
from ..base.torch_state import own_randomness
from ..graph.call_spec import CallSpec
from ..graph.interpreter import Interpreter
from ..graph.program import Program
from ..nn.partial_conv import PartialConv2d
from .fit_kinds import unfolded
from .lockstep import bound_arguments

PIXELS = 1024
"""Of each image that a kernel's input is measured on"""


@dataclass(frozen=True)
class Reader:
    """A convolution of the original network of whose input channels only the first `convolved` will be convolved."""

    node: fx.Node
    conv: nn.Conv2d
    convolved: int


def channel_orders(
    channels: Channels,
    original: Network,
    rewritten: Network,
    batches: Iterable[CallSpec],
    kept: Mapping[int, tuple[Positions, Positions]],
    felt: Callable[[], Mapping[fx.Node, Tensor]],
) -> dict[int, tuple[int, ...]]:
    """The order in which the channels that matter most come first, for each orbit of `channels` whose order matters.

    A channel matters by the energy of what its kernels do to it and no scalar could, on these inputs; of depthwise
    kernels as far as the network's output feels it (`sensitivities`). What several convolutions read counts for all of
    them. Of an orbit in `kept` what is at these places comes to those.
    """
    readers = list(_readers(original, rewritten))
    if not (readers or kept) or not channels.orbits:
        return {}
    worth = _worths(original.program, readers, batches, felt()) if readers else []
    orders = {
        index: _order(orbit, readers, worth, channels, kept.get(index)) for index, orbit in enumerate(channels.orbits)
    }
    return {index: order for index, order in orders.items() if order is not None}


def _readers(original: Network, rewritten: Network) -> Iterator[Reader]:
    """The convolutions of the original in whose place a partial one stands, call by call."""
    now = rewritten.program.modules
    for path, layer in original.layers.items():
        conv = layer.module
        if not isinstance(conv, nn.Conv2d) or not (layer.is_depthwise or layer.is_dense):
            continue
        partial = now.get(path) or now.get(f"{path}.pconv")
        if isinstance(partial, PartialConv2d) and partial.convolved < partial.channels:
            yield from (Reader(node, conv, partial.convolved) for node in layer.nodes)


def _worths(
    program: Program, readers: Sequence[Reader], batches: Iterable[CallSpec], felt: Mapping[fx.Node, Tensor]
) -> list[Positions]:
    """For every reader, what convolving each of its input channels is worth, as a share of what its output does."""
    grams: dict[int, Tensor] = {}
    by_node = {reader.node: index for index, reader in enumerate(readers)}

    class Watching(Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if (index := by_node.get(n)) is not None:
                (read, *_), _ = self.fetch_args_kwargs_from_env(n)
                patches = _patches(read, readers[index].conv, value.shape[2] * value.shape[3])
                gram = patches @ patches.mT
                grams[index] = grams[index] + gram if index in grams else gram
            return value

    watching = Watching(program.graph_module, graph=program.graph)
    for call in batches:
        with torch.no_grad(), own_randomness():
            watching.run(*bound_arguments(program.graph_module, call))
    return [_worth(reader, grams[index], felt.get(reader.node)) for index, reader in enumerate(readers)]


def _patches(x: Tensor, conv: nn.Conv2d, count: int) -> Tensor:
    """(C, k·k, pixels), float64: what a kernel sees of every channel, at some of its `count` output pixels."""
    pixels = torch.randperm(count, generator=torch.Generator().manual_seed(0))[:PIXELS].to(x.device)
    columns = unfolded(x, conv, pixels)
    patches = columns.reshape(len(x), x.shape[1], -1, len(pixels))
    return patches.permute(1, 2, 0, 3).flatten(2).double()


def _worth(reader: Reader, gram: Tensor, felt: Tensor | None) -> Positions:
    """(C,) from the second moments (C, k·k, k·k) of what the kernels see: the energy that no gain explains.

    `felt` are the sensitivities of the convolution's outputs, where the network's output has gradients. A dense
    kernel's outputs count alike: weighted, those of the dense U-Net left it 1.2 dB less after tuning.
    """
    conv = reader.conv
    weight = conv.weight.detach().double()
    kernels = (weight if conv.groups > 1 else weight.transpose(0, 1)).flatten(2)  # (C, outputs, k·k)
    height, width = conv.kernel_size
    center = (height - 1) // 2 * width + (width - 1) // 2
    seen = kernels @ gram
    energy = (seen * kernels).sum(2)
    explained = seen[:, :, center].square() / gram[:, center, center].clamp_min(1e-30)[:, None]
    shares = felt[:, None] if felt is not None and conv.groups > 1 else torch.ones((), device=energy.device)
    lost = ((energy - explained).clamp_min(0) * shares).sum(1)
    return (lost / (energy * shares).sum().clamp_min(torch.finfo(lost.dtype).tiny)).cpu().numpy()


def _order(
    orbit: Positions,
    readers: Sequence[Reader],
    worths: Sequence[Positions],
    channels: Channels,
    kept: tuple[Positions, Positions] | None,
) -> tuple[int, ...] | None:
    """The places of an orbit's classes, the ones that most readers convolve going to what is worth most there."""
    count = len(orbit)
    slot = {int(one): index for index, one in enumerate(orbit)}
    table = np.zeros((count, count))  # worth of a class (column) in a place (row)
    for reader, worth in zip(readers, worths, strict=True):
        places: list[list[int]] = [[] for _ in range(count)]
        for position, one in enumerate(channels.values[reader.node.all_input_nodes[0]].tolist()):
            if one in slot:
                places[slot[one]].append(position)
        if places[0]:
            positions = np.array(places)  # (count, how often a class occurs)
            table += (positions < reader.convolved).astype(float) @ worth[positions].T
    if kept is not None:
        table[np.ix_(*kept)] += table.max() + 1
    if not table.any():
        return None
    order, free = np.full(count, -1), np.ones(count, dtype=bool)
    most = (table > 0).sum(1) + table.sum(1) / table.sum()
    for place in np.argsort(-most, kind="stable"):
        chosen = int(np.argmax(np.where(free, table[place], -1.0)))
        order[place], free[chosen] = chosen, False
    return None if (order == np.arange(count)).all() else tuple(order.tolist())
