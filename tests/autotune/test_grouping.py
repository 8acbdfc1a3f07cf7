"""What is decided together, and what it is timed with."""

from __future__ import annotations

import pytest
import torch

from mofa_compiler import Roadmap, apply
from mofa_compiler.analysis.layers import Layer
from mofa_compiler.analysis.network import Network
from mofa_compiler.passes import SepConvToPConv
from mofa_compiler.rewriting import Pass
from tests.autotune.small import Tower, depthwise_taps, invent

X = torch.rand(1, 3, 32, 32)
TARGET = Roadmap([SepConvToPConv()], name="mine").with_target("eager")


@pytest.fixture
def tower() -> Tower:
    return Tower().eval()


def test_layers_that_are_alike_are_decided_together(tower: Tower, monkeypatch: pytest.MonkeyPatch) -> None:
    invent(monkeypatch, depthwise_taps)
    decisions = apply(tower, TARGET, X).decisions
    assert decisions is not None
    assert [len(one.paths) for one in decisions.layers] == [3, 3]
    narrow, wide = decisions.layers
    assert narrow.paths == tuple(f"blocks.{i}.narrow.0" for i in range(3))
    assert narrow.alternatives[0].name == "original"
    assert {"shrink-kernels", "pointwise-first", "sepconv-to-pconv"} <= {one.name for one in narrow.alternatives}
    assert "pointwise-first" not in {one.name for one in wide.alternatives}, "it contracts nothing"


def test_a_layer_is_timed_with_all_that_its_rewrite_reaches(tower: Tower, monkeypatch: pytest.MonkeyPatch) -> None:
    class Reaching(SepConvToPConv):
        def reach(self, layer: Layer, network: Network) -> tuple[str, ...]:
            return (layer.path.replace("narrow.0", "wide.1"),)

    def times(pass_: Pass) -> list[float | None]:
        invent(monkeypatch, lambda module: sum(isinstance(m, torch.nn.Conv2d) for m in module.modules()))
        decisions = apply(tower, Roadmap([pass_]).with_target("eager"), X).decisions
        assert decisions is not None
        return [one.alternatives[0].ms for one in decisions.layers]

    assert times(SepConvToPConv()) == [2 + 2, 2 + 2]  # a 1x1 convolution before and behind each piece
    assert times(Reaching()) == [4 + 2, 2 + 2]
