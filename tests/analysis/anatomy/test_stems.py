"""Where the first stages begin and end: stems, rows of layers, inverted blocks, recursion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch.nn.functional as F
from torch import Tensor, nn

from tests.analysis.anatomy.small import Net, anatomy, block, conv, double, down, skips, stages, up


def test_a_u_net_of_layers_between_pixel_unshuffle_and_shuffle() -> None:
    class Core(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.down = conv(12, 4), conv(4, 4), conv(4, 4, stride=2)
            self.c, self.d, self.up = conv(4, 4), conv(4, 4), up(4, 4)
            self.e, self.f, self.out = conv(4, 4), conv(4, 4), conv(4, 12)

        def forward(self, x: Tensor) -> Tensor:
            a = self.b(F.relu(self.a(x)))
            x = self.up(self.d(F.relu(self.c(F.relu(self.down(a))))))
            return self.out(self.f(F.relu(self.e(x + a))))

    found = anatomy(Net(lambda net, x: F.pixel_shuffle(net.core(F.pixel_unshuffle(x, 2)), 2), core=Core()))
    assert stages(found) == {
        "stem": (1, "core.a"),
        "encoder 1": (1, "core.b"),
        "bottleneck": (2, "core.down core.c core.d"),
        "decoder 1": (1, "core.up core.e core.f"),
        "head": (1, "core.out"),
    }


class Inverted(nn.Module):
    """An inverted residual block as in MobileNetV2."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__()
        self.expand, self.project = conv(inputs, 8, 1), conv(8, outputs, 1)
        self.depthwise = nn.Conv2d(8, 8, 3, stride, padding=1, groups=8)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.depthwise(self.expand(x)).relu())


def mobile(stem: nn.Module, down: Callable[[], nn.Module]) -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        a = net.enc1b(net.enc1a(net.stem(x)))
        b = net.enc2(net.down1(a))
        x = net.dec2(double(net.mid(net.down2(b))) + b)
        return net.out(net.dec1(double(x) + a))

    blocks = {name: Inverted(4, 4) for name in ("enc1b", "enc2", "mid", "dec1", "dec2")}
    first = Inverted(3 if isinstance(stem, nn.Identity) else 4, 4)
    return Net(run, stem=stem, enc1a=first, **blocks, down1=down(), down2=down(), out=conv(4, 3))


@pytest.mark.parametrize("with_stem", [True, False], ids=["stem", "bare"])
@pytest.mark.parametrize(
    "build",
    [
        lambda: Inverted(4, 4, 2),
        lambda: conv(4, 4, stride=2),
        lambda: nn.Sequential(nn.Conv2d(4, 4, 3, 2, padding=1, groups=4), conv(4, 4, 1)),
        lambda: nn.Sequential(nn.MaxPool2d(2), conv(4, 4, 1)),
    ],
    ids=["inverted", "convolution", "separable", "pooled"],
)
def test_what_only_leads_to_the_next_level_belongs_to_it(build: Callable[[], nn.Module], with_stem: bool) -> None:
    found = anatomy(mobile(conv(3, 4) if with_stem else nn.Identity(), build))
    assert stages(found) == {
        **({"stem": (0, "stem")} if with_stem else {}),
        "encoder 1": (0, "enc1a enc1b"),
        "encoder 2": (1, "down1 enc2"),
        "bottleneck": (2, "down2 mid"),
        "decoder 1": (1, "dec2"),
        "decoder 2": (0, "dec1"),
        "head": (0, "out"),
    }
    assert {found.roles["down1"], found.roles["down2"]} == {"down transition"}


def test_blocks_behind_the_stem_that_a_skip_leaves_are_a_stage() -> None:
    """As in nnU-Net's residual encoder; where the skip leaves the stem itself, what follows belongs to it."""

    def build(early: bool) -> nn.Module:
        def run(net: Any, x: Tensor) -> Tensor:
            first = net.stem(x)
            a = net.flat(first)
            b = net.enc(a)
            x = net.dec2(double(net.low(b)) + b)
            return net.out(net.dec1(double(x) + (first if early else a)))

        strided = {name: nn.Sequential(conv(4, 4, stride=2), nn.ReLU(), conv(4, 4)) for name in ("enc", "low")}
        parts = {"flat": block(4), **strided, "dec1": block(4), "dec2": block(4)}
        return Net(run, stem=conv(3, 4), **parts, out=conv(4, 3))

    names = {early: stages(anatomy(build(early))) for early in (False, True)}
    assert {name: names[False][name] for name in ("stem", "encoder 1", "encoder 2", "encoder 3")} == {
        "stem": (0, "stem"),
        "encoder 1": (0, "flat"),
        "encoder 2": (1, "enc"),
        "encoder 3": (2, "low"),
    }
    assert {name: names[True][name] for name in ("stem", "encoder 1", "encoder 2")} == {
        "stem": (0, "stem flat"),
        "encoder 1": (1, "enc"),
        "encoder 2": (2, "low"),
    }


class Recursive(nn.Module):
    """A U-Net defined by recursion, with a single convolution each way down and up (pix2pix)."""

    def __init__(self, depth: int):
        super().__init__()
        self.down, self.up = conv(4, 4, stride=2), up(4, 4)
        self.inner = Recursive(depth - 1) if depth > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.up(self.inner(self.down(x).relu()).relu())


def test_recursion_below_stages_is_no_block() -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        return net.out(net.dec(net.whole(net.enc(net.stem(x)))))

    parts = {"stem": conv(3, 4), "enc": block(4), "whole": Recursive(3), "dec": block(4), "out": conv(4, 3)}
    found = anatomy(Net(run, **parts))
    assert found.depth == 3
    assert [level for _, level, _, _ in skips(found)] == [2, 1, 0]


def test_a_row_of_layers_at_the_bottom_is_no_block() -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        a = net.enc(net.stem(x))
        b = net.down(a)
        return net.out(net.dec(net.up(b + net.row(b)) + a))

    row = nn.Sequential(conv(4, 4, stride=2), nn.ReLU(), conv(4, 4), nn.ReLU(), up(4, 4))
    parts = {"enc": block(4), "down": down(), "row": row, "up": up(4, 4), "dec": block(4)}
    found = anatomy(Net(run, stem=conv(3, 4), **parts, out=conv(4, 3)))
    assert found.depth == 2
    assert [level for _, level, _, _ in skips(found)] == [1, 0]
