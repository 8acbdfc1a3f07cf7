"""Images to look at: what a network is given, and what it should return where that is known."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

UNIT = torch.tensor([0.0, 1.0])


@dataclass(frozen=True)
class Sample:
    """One image.

    Attributes:
        name: for people: where it comes from.
        input: (C, h, w), as the network takes it.
        target: (C', h', w') in the units of the network's output; None where it is unknown.
        levels: (2,) which values of the output are black and white.
        raw: whether it is packed raw, RGGB and linear.
        source: what it has to do with what the network was fitted on, for people; empty: unknown.
        side: if the network does not take an input of this size, a crop of so many pixels a side will do; 0: none.
    """

    name: str
    input: Tensor
    target: Tensor | None = None
    levels: Tensor = UNIT
    side: int = 0
    raw: bool = False
    source: str = ""

    def cropped(self) -> Sample | None:
        """The upper left corner, `side` pixels a side; None where that is no smaller."""
        height, width = self.input.shape[1:]
        if not 0 < self.side < max(height, width):
            return None
        target = self.target
        if target is not None:
            times = target.shape[1] // height
            target = target[:, : self.side * times, : self.side * times]
        return replace(self, input=self.input[:, : self.side, : self.side], target=target, side=0)
