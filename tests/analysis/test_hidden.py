"""Hidden channels: where they begin and end, and what reads them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from architectures import PMRID, NAFNet
from mofa_compiler.analysis.hidden import Held, Hidden, hidden_channels
from tests.calibration.small import Between, conv, network

X = torch.rand(1, 3, 32, 32)


def found(model: nn.Module) -> dict[str, Hidden]:
    return {path: one for path, one in hidden_channels(network(model, X)).items() if isinstance(one, Hidden)}


def test_a_gate_with_attention() -> None:
    places = found(NAFNet(width=4).eval())
    assert len(places) == 14  # two a block
    first = places["encoders.0.0.conv1"]
    assert (len(first.orbit), first.last) == (4, False)
    assert [reading.path.rpartition("0.")[2] for reading in first.readings] == ["sca.1", "conv3"]
    attention, projection = first.readings
    assert attention.seen is not attention.value  # before it is pooled
    assert first.measured == (projection,)
    assert {axis.path for axis in first.axes} == {
        f"encoders.0.0.{name}" for name in ("conv1", "conv2", "sca.1", "conv3")
    }
    pairs = first.blocks(first.nodes[0])
    assert pairs.tolist() == [[index, index + 4] for index in pairs[:, 0].tolist()]
    assert sorted(first.first(2).tolist()) == sorted(first.first(4)[:2].tolist())


def test_bottlenecks_and_streams() -> None:
    kinds = hidden_channels(network(PMRID().eval(), X))
    hidden = {path for path, one in kinds.items() if isinstance(one, Hidden)}
    assert {path for path in kinds if path.startswith("enc") and path.endswith("conv1.pointwise")} <= hidden
    streams = {
        path: one.code for path, one in kinds.items() if path.endswith("conv2.pointwise") and isinstance(one, Held)
    }
    assert set(streams.values()) == {"stream"}


def test_the_first_of_two_that_make_the_same_has_them() -> None:
    def gate(m: Between, x: Tensor) -> Tensor:
        return x + m.c(F.silu(m.a(x)) * m.b(x))

    model = Between(gate, a=conv(8, 16), b=conv(8, 16), c=conv(16, 8)).eval()
    assert [*found(model)] == ["a"]
    assert "b" not in hidden_channels(network(model, X))


def test_it_is_looked_for_once() -> None:
    one = network(Between(lambda m, x: m.c(F.relu(m.a(x))) + x, a=conv(8, 16), c=conv(16, 8)).eval(), X)
    assert hidden_channels(one) is hidden_channels(one)
