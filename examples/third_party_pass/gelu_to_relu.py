"""A pass over places that are no convolution, and approximate: GELU becomes ReLU, which every engine has."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from mofa_compiler.rewriting import FROZEN, Fate, GraphPass, Pass, Rewiring


@dataclass(frozen=True, config=FROZEN)
class GeluToRelu(GraphPass):
    """Replace `nn.GELU` by `nn.ReLU`, which differs from it by 0.17 at most; the layers behind are for calibration."""

    name: ClassVar[str] = "gelu-to-relu"

    @classmethod
    def example(cls) -> tuple[Pass, nn.Module, Tensor]:
        model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, 3, 3, padding=1))
        return cls(), model, torch.rand(1, 3, 16, 16)

    def rewire(self, wiring: Rewiring) -> None:
        for node in wiring.nodes:
            path = str(node.target)
            if type(wiring.module(node)) is not nn.GELU or not self.looks_at(path):
                continue
            before = wiring.describe(path)
            if fixed := wiring.fixed(path):
                wiring.refuse(path, before, fixed)
            else:
                wiring.put(path, nn.ReLU())
                wiring.tell(path, before, wiring.describe(path), Fate.INHERITED)
