"""Long skip connections: what counts as one, where it comes from and how it is taken in."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.analysis.anatomy.small import Net, anatomy, block, conv, double, skips, stages, up


def frame(channels: int = 4) -> dict[str, nn.Module]:
    """The parts of a U-Net over one level."""
    parts = {"enc": block(channels), "mid": block(channels), "dec": block(channels)}
    return {"stem": conv(3, channels), **parts, "out": conv(channels, 3)}


def test_a_gate_before_a_concatenation() -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        a = net.enc(net.stem(x))
        x = double(net.mid(F.max_pool2d(a, 2)))
        gate = torch.sigmoid(net.weigh(F.relu(net.of_skip(a) + net.of_decoder(x))))
        return net.out(net.dec(net.fuse(torch.cat([a * gate, x], 1))))

    gate = {"of_skip": conv(4, 4, 1), "of_decoder": conv(4, 4, 1), "weigh": conv(4, 1, 1)}
    found = anatomy(Net(run, **frame(), **gate, fuse=conv(8, 4, 1)))
    assert skips(found) == [("cat", 0, "encoder 1", "decoder 1")]


def test_one_connection_for_each_level_that_it_is_taken_in_at() -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        a = net.enc(net.stem(x))
        b = net.enc2(F.max_pool2d(a, 2))
        x = double(net.mid(F.max_pool2d(b, 2))) + b + F.max_pool2d(net.shrink(a), 2)
        x = double(net.dec2(x)) + a
        return net.out(net.dec(x) - x + a)

    found = anatomy(Net(run, **frame(), enc2=block(4), dec2=block(4), shrink=conv(4, 4, 1)))
    assert skips(found) == [
        ("add", 1, "encoder 2", "decoder 1"),
        ("add", 1, "encoder 1", "decoder 1"),
        ("add", 0, "encoder 1", "decoder 2"),
    ]
    assert found.roles["shrink"] == "skip"


def test_pooling_indices_are_no_skip_connection() -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        x, places = F.max_pool2d(net.enc(net.stem(x)), 2, return_indices=True)
        return net.out(net.dec(F.max_unpool2d(net.mid(x), places, 2)))

    found = anatomy(Net(run, **frame()))
    assert found.reason == "the resolution goes down once and up once, but no skip connection spans that"
    assert skips(found) == []


def test_a_residual_inside_what_enlarges_is_none_either() -> None:
    def widen(net: Any, x: Tensor) -> Tensor:
        return net.long(x) + net.short(x)

    def run(net: Any, x: Tensor) -> Tensor:
        return net.out(net.widen(net.mid(net.down(net.stem(x)))))

    short = nn.Sequential(conv(4, 4, 1), up(4, 4))
    enlarging = Net(widen, long=nn.Sequential(block(4), up(4, 4)), short=short)
    found = anatomy(Net(run, **frame(), down=conv(4, 4, stride=2), widen=enlarging))
    assert not found.is_unet


def test_an_encoder_that_stays_on_one_level() -> None:
    """As in UNETR: features are taken between the blocks of a transformer and enlarged on the way."""

    def run(net: Any, x: Tensor) -> Tensor:
        a = net.block1(net.embed(x))
        b = net.block2(a)
        x = net.dec1(torch.cat([net.up1(net.block3(b)), net.widen1(b)], 1))
        return net.out(net.dec2(torch.cat([net.up2(x), net.widen2(a)], 1)))

    enlarging = {"up1": up(4, 4), "up2": up(4, 4), "widen1": up(4, 4), "widen2": nn.Sequential(up(4, 4), up(4, 4))}
    blocks = {f"block{i}": block(4) for i in (1, 2, 3)}
    model = Net(
        run, embed=nn.Conv2d(3, 4, 4, 4), **blocks, **enlarging, dec1=block(8, 4), dec2=block(8, 4), out=conv(4, 3)
    )
    found = anatomy(model)
    assert found.is_unet
    assert skips(found) == [("cat", 1, "bottleneck", "decoder 1"), ("cat", 0, "bottleneck", "decoder 2")]
    assert {found.roles[name] for name in ("widen1", "widen2")} == {"skip"}


class TwoDecoders(nn.Module):
    """One encoder and two decoders, whose images are added up."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.enc, self.mid = conv(3, 4), block(4), block(4)
        self.dec1, self.dec2, self.out = block(4), block(4), conv(4, 3)

    def decode(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.out(self.dec2(double(self.dec1(x)) + skip))

    def forward(self, x: Tensor) -> Tensor:
        a = self.enc(self.stem(x))
        b = self.mid(F.max_pool2d(a, 2))
        return x + self.decode(b, a) + self.decode(b.flip(3), a.flip(3)).flip(3)


def test_images_added_up_are_no_skip_connection() -> None:
    found = anatomy(TwoDecoders())
    assert skips(found) == [("add", 0, "encoder 1", "decoder 1")]
    assert found.of_kind("head")[0].units == ("out",)


def test_the_residual_of_a_second_network_is_global() -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        x = net.first(x) + x
        return net.second(x) + x

    def part() -> nn.Module:
        return Net(
            lambda net, x: net.out(net.dec(double(net.mid(F.max_pool2d(a := net.enc(net.stem(x)), 2))) + a)), **frame()
        )

    found = anatomy(Net(run, first=part(), second=part()))
    assert [(shape.downs, shape.ups) for shape in found.passes] == [(1, 1), (1, 1)]
    assert skips(found) == [("add", 0, "encoder 1", "decoder 1"), ("add", 0, "pass 2 encoder 1", "pass 2 decoder 1")]


def test_features_in_a_list_of_several_levels() -> None:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([conv(3, 4), conv(4, 4, stride=2), conv(4, 4, stride=2)])

        def forward(self, x: Tensor) -> list[Tensor]:
            features = []
            for layer in self.layers:
                x = layer(x)
                features.append(x if x.min() > 0 else x.clone())  # depends on the data: stays opaque
            return features

    def run(net: Any, x: Tensor) -> Tensor:
        a, b, c = net.encoder(x)
        return net.out(net.dec2(double(net.dec1(double(c) + b)) + a))

    found = anatomy(Net(run, encoder=Encoder(), dec1=block(4), dec2=block(4), out=conv(4, 3)))
    assert [(kind, level, target) for kind, level, _, target in skips(found)] == [
        ("add", 1, "decoder 1"),
        ("add", 0, "decoder 2"),
    ]


def test_two_levels_of_features_mixed_on_the_way_are_a_skip() -> None:
    """As in MIMO-UNet: a unit fuses features of every level for one of them."""

    def run(net: Any, x: Tensor) -> Tensor:
        a = net.enc(net.stem(x))
        b = net.enc2(F.max_pool2d(a, 2))
        c = net.bottom(F.max_pool2d(b, 2))
        fused = net.fuse(torch.cat([F.max_pool2d(a, 2), b, double(c)], 1))
        x = net.dec2(torch.cat([double(net.mid(c)), fused], 1))
        return net.out(net.dec(double(x) + a))

    found = anatomy(Net(run, **frame(), enc2=block(4), bottom=block(4), fuse=conv(12, 4), dec2=block(8, 4)))
    assert stages(found)["skip"] == (1, "fuse")
    assert skips(found) == [("cat", 1, "encoder 2", "decoder 1"), ("add", 0, "encoder 1", "decoder 2")]
