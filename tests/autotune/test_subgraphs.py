"""The piece of a network that is timed for a layer: from where to where it goes."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from architectures import NAFNet
from mofa_compiler.analysis.network import Network
from mofa_compiler.autotune.subgraphs import Region, extract, piece_around
from mofa_compiler.passes import NarrowHidden
from mofa_compiler.rewriting.engine import rewrite
from tests.calibration.small import Between, conv, network
from tests.passes.hidden_blocks import NARROWED, SHAPE, depthwise, gated, inverted


def cut(captured: Network, path: str, reached: tuple[str, ...] = ()) -> Region:
    found = piece_around(captured.layers[path], captured, reached)
    assert found is not None
    return found[0]


def two_ends(m: Between, x: Tensor) -> Tensor:
    y = F.relu(m.a(x))
    return x + m.c(y) * torch.tanh(m.d(y))


def two_beginnings(m: Between, x: Tensor) -> Tensor:
    return x + m.c(m.a(x) * m.b(F.relu(m.d(x))))


REACHING: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...], str, str]] = {
    "a gate": (lambda: Between(gated, a=conv(8, 32), b=depthwise(32), c=conv(16, 8)), ("c",), "first", "c"),
    "an inverted residual": (NARROWED["inverted residual"][0], ("a", "n", "b", "c"), "first", "c"),
    "attention": (NARROWED["channel attention"][0], ("e", "s", "c"), "first", "c"),
    "where two layers meet": (
        lambda: Between(two_ends, a=conv(8, 16), c=conv(16, 8), d=conv(16, 8)),
        ("c", "d"),
        "first",
        "mul",
    ),
    "where two layers part": (
        lambda: Between(two_beginnings, a=conv(8, 16), b=conv(8, 16), c=conv(16, 8), d=conv(8, 8)),
        ("b", "c"),
        "first",
        "c",
    ),
    "all calls": (
        lambda: Between(
            lambda m, x: inverted(m, F.silu(inverted(m, x))),
            a=conv(8, 32),
            n=nn.Identity(),
            b=depthwise(32),
            c=conv(32, 8),
        ),
        ("c",),
        "first",
        "c_1",
    ),
    "what is no call": (NARROWED["scale of each channel"][0], ("w", "c"), "first", "c"),
}


@pytest.mark.parametrize("name", REACHING)
def test_a_piece_goes_as_far_as_an_effect_reaches(name: str) -> None:
    make, reached, start, end = REACHING[name]
    assert cut(network(make().eval(), torch.rand(SHAPE)), "a", reached) == Region(start, end)


def test_what_reaches_no_farther_has_the_piece_to_the_next_layers() -> None:
    captured = network(NARROWED["inverted residual"][0]().eval(), torch.rand(SHAPE))
    assert cut(captured, "a") == cut(captured, "a", ("a",)) == Region("first", "relu6")
    assert cut(captured, "b").end == "c"


def test_where_the_ends_never_meet_the_piece_is_the_small_one() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.a, self.c, self.d = conv(3, 8, 3), conv(8, 16), conv(16, 3), conv(16, 3)

        def forward(self, x: Tensor) -> Any:
            y = F.relu(self.a(self.first(x)))
            return self.c(y), self.d(y)

    captured = network(Two().eval(), torch.rand(SHAPE))
    assert cut(captured, "a", ("c", "d")) == cut(captured, "a")


def test_the_saving_of_a_narrowed_block_is_that_of_all_its_layers() -> None:
    captured = network(NAFNet(width=8).eval(), torch.rand(1, 3, 32, 32))
    layer = captured.layers["encoders.0.0.conv1"]
    pass_ = NarrowHidden(keep=Fraction(1, 2), layers=(layer.path,))
    found = piece_around(layer, captured, pass_.reach(layer, captured))
    assert found is not None
    where, piece = found
    narrowed, _ = rewrite(captured, pass_)
    half = extract(narrowed.program, where)
    assert half is not None
    inside = ["conv1", "conv2", "sca.1", "conv3"]
    macs = sum(captured.layers[f"encoders.0.0.{name}"].macs for name in inside)
    attention = captured.layers["encoders.0.0.sca.1"].macs
    assert piece.work - half.work == macs / 2 + attention / 4  # whose inputs are halved, too
