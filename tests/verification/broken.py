"""A pass that does not do what it says."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from mofa_compiler.rewriting.pass_api import Match, Pass, Replacement


def scaled(conv: nn.Module, factor: float) -> nn.Conv2d:
    """A copy of a convolution with its output scaled."""
    new = copy.deepcopy(conv)
    assert isinstance(new, nn.Conv2d)
    with torch.no_grad():
        for parameter in new.parameters():
            parameter.mul_(factor)
    return new


@dataclass(frozen=True)
class Broken(Pass):
    """What it puts in place of one layer is not what it says, in one of several ways."""

    name: ClassVar[str] = "broken"

    path: str = "1"
    how: str = "layer"

    def match(self, layer: Any, network: Any) -> Match | None:
        return Match() if layer.path == self.path else None

    def build(self, layer: Any, modules: Mapping[str, nn.Module]) -> Replacement:
        old = modules[layer.path]
        if self.how == "layer":  # seen at once
            return Replacement(scaled(old, 1.001), fate="exact", exact=True)
        if self.how == "reference":  # the reference is as wrong as the layer
            return Replacement(scaled(old, 1.001), fate="exact", exact=True, reference=scaled(old, 1.001))
        if self.how == "size":  # right at 16x16 only
            new = nn.Sequential(scaled(old, 1), nn.Upsample(size=(16, 16)))
            return Replacement(new, fate="exact", exact=True, reference=new)
        factor = {"neighbour": 1.0, "compensated": 0.5}[self.how]
        behind = scaled(modules["2"], 1)
        with torch.no_grad():
            behind.weight.mul_(factor)
        double = scaled(old, 2)
        return Replacement(double, fate="exact", exact=True, reference=double, compensated={"2": behind})
