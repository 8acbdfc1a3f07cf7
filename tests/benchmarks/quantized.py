"""What engines make of a network in eight bits: post-training static quantization by their own tools."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from mofa_compiler.base.errors import EngineError
from mofa_compiler.runtime import Compiled, Engine

from .peers import UnmetError


def quantized(engine: Engine, model: nn.Module, inputs: Sequence[Tensor]) -> bytes:
    """A network in eight bits, ranges of activations from inputs, as what the engine loads.

    Raises:
        UnmetError: the engine has no quantizer that we know, or it does not take the network.
    """
    try:
        return engine.at("int8").calibrated([[x] for x in inputs]).pack(model, inputs[:1])
    except EngineError as error:
        raise UnmetError(str(error)) from error


class Tiled(nn.Module):
    """A compiled network, which takes one size alone, on images of any size: tile by tile, borders repeated.

    Attributes:
        size: side of the tiles.
    """

    def __init__(self, compiled: Compiled, size: int):
        super().__init__()
        self._compiled, self.size = compiled, size

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        whole = pad(x, (0, -width % self.size, 0, -height % self.size), mode="replicate")
        rows = []
        for row in torch.split(whole, self.size, -2):
            tiles = [self._compiled.outputs([tile.contiguous()])[0] for tile in torch.split(row, self.size, -1)]
            rows.append(torch.cat(tiles, -1))
        return torch.cat(rows, -2)[..., :height, :width]


def mosaics(batches: Sequence[Tensor], size: int) -> list[Tensor]:
    """Crops side by side, in squares, so that they are images (1, C, `size`, `size`); what is left over is left out."""
    crops = torch.cat(list(batches))
    across = size // crops.shape[-1]
    number = len(crops) // across**2
    squares = crops[: number * across**2].reshape(number, across, across, *crops.shape[1:])
    rows = torch.cat(squares.unbind(2), -1)
    return list(torch.cat(rows.unbind(1), -2)[:, None])
