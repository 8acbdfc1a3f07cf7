"""The checks that hold for every pass fail for a pass that breaks them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from mofa_compiler.analysis.layers import Layer
from mofa_compiler.analysis.network import Network
from mofa_compiler.rewriting.pass_api import Match, Pass, Replacement
from mofa_compiler.testing import check_pass
from tests.rewrites import chain


@dataclass(frozen=True)
class Nothing(Pass):
    """Match no layer at all, and bring no example."""

    name: ClassVar[str] = "nothing"

    def match(self, layer: Layer, network: Network) -> Match | None:
        return None

    def build(self, layer: Layer, modules: Mapping[str, nn.Module]) -> Replacement:
        return Replacement(nn.Conv2d(8, 8, 1))


@dataclass(frozen=True)
class NothingOfIts(Nothing):
    """Match no layer of the example that it brings."""

    name: ClassVar[str] = "nothing-of-its"

    @classmethod
    def example(cls) -> tuple[Pass, nn.Module, Tensor]:
        return cls(), chain(nn.Conv2d(8, 8, 3, padding=1)), torch.rand(1, 8, 8, 8)


@dataclass(frozen=True)
class Unsteady(NothingOfIts):
    """Put a random convolution where a larger one stood."""

    name: ClassVar[str] = "unsteady"

    def match(self, layer: Layer, network: Network) -> Match | None:
        return None if layer.is_1x1 else Match()


@dataclass(frozen=True)
class Endless(Unsteady):
    """Rewrite what it made, again and again."""

    name: ClassVar[str] = "endless"

    def match(self, layer: Layer, network: Network) -> Match | None:
        return Match()


@dataclass(frozen=True)
class Foreign(NothingOfIts):
    """Put ones where a larger convolution stood, and offer another pass instead."""

    name: ClassVar[str] = "foreign"

    def match(self, layer: Layer, network: Network) -> Match | None:
        return None if layer.is_1x1 else Match()

    def build(self, layer: Layer, modules: Mapping[str, nn.Module]) -> Replacement:
        new = nn.Conv2d(8, 8, 1)
        nn.init.ones_(new.weight)
        nn.init.ones_(new.bias)  # type: ignore[arg-type]
        return Replacement(new)

    def alternatives(self, layer: Layer, network: Network, *, bounded: bool = False) -> Sequence[Pass]:
        return [Unsteady()]


@pytest.mark.parametrize(
    ("pass_class", "broken"),
    [
        (Nothing, "nothing brings no model that it has to rewrite"),
        (NothingOfIts, "nothing-of-its rewrites nothing of its example"),
        (Unsteady, "two runs differ in 1.weight"),
        (Foreign, "an alternative of foreign is another pass, unsteady"),
        (Endless, "a second run rewrites what the first made: 1"),
    ],
)
def test_a_pass_that_breaks_a_rule_fails(pass_class: type[Pass], broken: str):
    with pytest.raises(AssertionError, match=broken):
        check_pass(pass_class)
