"""Which stage the parts of unusual networks belong to, labels in full; and the anatomy as typed data."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mofa_compiler.analysis.anatomy import Transition, Unit, UShape
from tests.analysis.anatomy.small import Net, anatomy, block, conv, double, down, skips, stages, up


class PooledContext(nn.Module):
    """A block that pools by 8, convolves and adds the result: deeper inside than any stage."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.pooled, self.after = conv(4, 4), conv(4, 4), conv(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        context = F.interpolate(self.pooled(F.avg_pool2d(x, 8)), size=x.shape[-2:])
        return self.after(x + context)


def test_pooled_context_at_the_bottom_is_a_block() -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        a = net.enc(net.stem(x))
        return net.out(net.dec(net.up(net.mid(net.down(a))) + a))

    parts = {"enc": block(4), "down": down(), "mid": PooledContext(), "up": up(4, 4), "dec": block(4)}
    found = anatomy(Net(run, stem=conv(3, 4), **parts, out=conv(4, 3)))
    assert stages(found) == {
        "stem": (0, "stem"),
        "encoder 1": (0, "enc"),
        "bottleneck": (1, "down mid"),
        "decoder 1": (0, "up dec"),
        "head": (0, "out"),
    }


class Hourglass(nn.Module):
    """A U-Net defined by recursion."""

    def __init__(self, depth: int):
        super().__init__()
        self.skip, self.enc, self.dec = block(4), block(4), block(4)
        self.inner = Hourglass(depth - 1) if depth > 1 else block(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + double(self.dec(self.inner(self.enc(F.max_pool2d(x, 2)))))


def test_networks_defined_by_recursion_in_a_cascade() -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        x = net.stem(x)
        for glass, features in zip(net.glasses, net.features, strict=True):
            x = x + features(glass(x))
        return net.out(x)

    glasses = nn.ModuleList([Hourglass(2), Hourglass(2)])
    features = nn.ModuleList([block(4), block(4)])
    found = anatomy(Net(run, stem=conv(3, 4), glasses=glasses, features=features, out=conv(4, 3)))
    assert stages(found) == {
        "stem": (0, "stem"),
        "skip": (0, "glasses.0.skip glasses.0.inner.skip glasses.1.skip glasses.1.inner.skip"),
        "encoder 1": (1, "glasses.0.enc"),
        "bottleneck": (2, "glasses.0.inner.enc glasses.0.inner.inner glasses.0.inner.dec"),
        "decoder 1": (1, "glasses.0.dec"),
        "decoder 2": (0, "features.0"),
        "pass 2 encoder 1": (1, "glasses.1.enc"),
        "pass 2 bottleneck": (2, "glasses.1.inner.enc glasses.1.inner.inner glasses.1.inner.dec"),
        "pass 2 decoder 1": (1, "glasses.1.dec"),
        "pass 2 decoder 2": (0, "features.1"),
        "head": (0, "out"),
    }


def test_decoders_that_work_before_they_go_up() -> None:
    """As in Swin-Unet: a bare change first, then stages that end with the next one."""

    def run(net: Any, x: Tensor) -> Tensor:
        a = net.enc1(net.stem(x))
        b = net.enc2(net.down1(a))
        c = net.enc3(net.down2(b))
        x = net.up3(net.mid(net.down3(c)))
        x = net.dec3(net.fuse3(torch.cat([x, c], 1)))
        x = net.dec2(net.fuse2(torch.cat([x, b], 1)))
        return net.out(net.dec1(net.fuse1(torch.cat([x, a], 1))))

    parts: dict[str, nn.Module] = {f"enc{i}": block(4) for i in (1, 2, 3)} | {f"down{i}": down() for i in (1, 2, 3)}
    parts |= {f"fuse{i}": conv(8, 4, 1) for i in (1, 2, 3)} | {"mid": block(4), "up3": up(4, 4), "dec1": block(4)}
    parts |= {f"dec{i}": nn.Sequential(block(4), up(4, 4)) for i in (2, 3)}
    found = anatomy(Net(run, stem=conv(3, 4), **parts, out=conv(4, 3)))
    assert {name: stages(found)[name] for name in ("decoder 1", "decoder 2", "decoder 3", "head")} == {
        "decoder 1": (2, "up3 fuse3 dec3"),
        "decoder 2": (1, "fuse2 dec2"),
        "decoder 3": (0, "fuse1 dec1"),
        "head": (0, "out"),
    }
    assert [target for *_, target in skips(found)] == ["decoder 1", "decoder 2", "decoder 3"]


def test_blocks_behind_the_last_up_that_take_skips_in() -> None:
    """As in ADM: one concatenation for each block of the encoder."""

    def run(net: Any, x: Tensor) -> Tensor:
        taken = [x := net.stem(x), x := net.enc1(x), x := net.down(x), x := net.enc2(x)]
        x = net.mid(x)
        for decode in net.decoders:
            x = decode(torch.cat([x, taken.pop()], 1))
        return net.out(x)

    decoders = [block(8, 4), nn.Sequential(block(8, 4), up(4, 4)), block(8, 4), block(8, 4)]
    parts = {"enc1": block(4), "down": conv(4, 4, stride=2), "enc2": block(4), "mid": block(4)}
    found = anatomy(Net(run, stem=conv(3, 4), **parts, decoders=nn.ModuleList(decoders), out=conv(4, 3)))
    assert stages(found) == {
        "stem": (0, "stem"),
        "encoder 1": (0, "enc1"),
        "bottleneck": (1, "down enc2 mid decoders.0"),
        "decoder 1": (0, "decoders.1 decoders.2 decoders.3"),
        "head": (0, "out"),
    }


def one_level(tail: nn.Module, run_tail: Any, **more: nn.Module) -> nn.Module:
    """A U-Net over two levels whose decoder stages hold two units each, and what follows."""

    def run(net: Any, x: Tensor) -> Tensor:
        a = net.enc1(net.stem(x))
        b = net.enc2(net.down1(a))
        x = net.dec2(net.fuse2(torch.cat([net.up2(net.mid(net.down2(b))), b], 1)))
        x = net.dec1(net.fuse1(torch.cat([net.up1(x), a], 1)))
        return run_tail(net, x, a)

    parts: dict[str, nn.Module] = {"stem": conv(3, 4), "mid": block(4), "tail": tail, **more}
    for i in (1, 2):
        parts |= {f"enc{i}": block(4), f"down{i}": down(), f"up{i}": up(4, 4), f"dec{i}": block(4)}
        parts |= {f"fuse{i}": block(8, 4)}
    return Net(run, **parts)


def test_the_last_stage_is_as_long_as_the_one_before() -> None:
    found = anatomy(one_level(block(4, 3), lambda net, x, a: net.tail(x)))
    assert stages(found)["decoder 1"] == (1, "up2 fuse2 dec2")
    assert stages(found)["decoder 2"] == (0, "up1 fuse1 dec1")
    assert stages(found)["head"] == (0, "tail")


def test_a_skip_taken_in_again_does_not_prolong_the_decoder() -> None:
    """As in MPRNet's third stage, which takes in what the encoder and the decoder before it made."""
    model = one_level(
        conv(4, 3), lambda net, x, a: net.tail(net.refine(x) + net.again(a)), refine=block(4), again=conv(4, 4, 1)
    )
    found = anatomy(model)
    assert stages(found)["decoder 2"] == (0, "up1 fuse1 dec1")
    assert stages(found)["head"] == (0, "refine tail")
    assert found.roles["again"] == "skip"


def test_an_output_that_is_enlarged_is_a_head() -> None:
    """A raw image is packed before the network and unpacked after it; or an output is brought to the input's size."""

    def run(net: Any, x: Tensor) -> Tensor:
        a = net.enc(net.stem(F.pixel_unshuffle(x, 2)))
        return F.pixel_shuffle(net.out(net.dec(net.up(net.mid(net.down(a))) + a)), 2)

    parts = {"enc": block(4), "down": down(), "mid": block(4), "up": up(4, 4), "dec": block(4)}
    for enlarging, forward in ((conv(4, 4), run), (nn.Sequential(conv(4, 4), nn.PixelShuffle(2)), None)):

        def whole(net: Any, x: Tensor) -> Tensor:
            a = net.enc(net.stem(F.pixel_unshuffle(x, 2)))
            return net.out(net.dec(net.up(net.mid(net.down(a))) + a))

        found = anatomy(Net(forward or whole, stem=conv(4, 4), **parts, out=enlarging), (1, 1, 64, 96))
        assert stages(found) == {
            "stem": (1, "stem"),
            "encoder 1": (1, "enc"),
            "bottleneck": (2, "down mid"),
            "decoder 1": (1, "up dec"),
            "head": (1, "out"),
        }


def test_layers_in_a_row_open_the_u_net_whose_container_they_are_in() -> None:
    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.down = conv(3, 4), conv(4, 4), conv(4, 4, stride=2)
            self.c, self.d, self.up, self.e, self.f = conv(4, 4), conv(4, 4), up(4, 4), conv(4, 4), conv(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            a = self.b(F.relu(self.a(x)))
            x = self.up(self.d(F.relu(self.c(F.relu(self.down(a))))))
            return self.f(F.relu(self.e(x + a)))

    found = anatomy(Net(lambda net, x: net.second(net.first(x)), first=Rows(), second=Rows()))
    assert stages(found) == {
        "stem": (0, "first.a"),
        "encoder 1": (0, "first.b"),
        "bottleneck": (1, "first.down first.c first.d"),
        "decoder 1": (0, "first.up first.e"),
        "bridge": (0, "first.f"),
        "pass 2 encoder 1": (0, "second.a second.b"),
        "pass 2 bottleneck": (1, "second.down second.c second.d"),
        "pass 2 decoder 1": (0, "second.up second.e"),
        "head": (0, "second.f"),
    }


def test_super_resolution_has_no_bottleneck() -> None:
    tail = nn.Sequential(conv(4, 16), nn.PixelShuffle(2), conv(4, 3))
    found = anatomy(nn.Sequential(conv(3, 4), block(4), block(4), tail))
    assert stages(found) == {"stem": (0, "0"), "body": (0, "1 2"), "head": (-1, "3")}


def test_what_reads_the_image_again() -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        a = net.enc(net.stem(x) + net.beside(x))
        x = net.down(a) + net.small(F.avg_pool2d(x, 2))
        return net.out(net.dec(net.up(net.mid(x)) + a))

    parts = {"enc": block(4), "down": down(), "mid": block(4), "up": up(4, 4), "dec": block(4)}
    aside = {"beside": conv(3, 4, 1), "small": conv(3, 4, 1)}
    found = anatomy(Net(run, stem=block(3, 4), **aside, **parts, out=conv(4, 3)))
    assert (found.roles["beside"], found.stage_by_path["beside"]) == ("branch", "stem")
    assert (found.roles["small"], found.stage_by_path["small"]) == ("side input", "side input")
    assert [stage.units for stage in found.of_kind("side")] == [("small",)]


class Modulated(nn.Module):
    """Scales features by what it makes of a condition: on the main path, with its convolutions off it."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = conv(4, 4, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return x * self.scale(condition)


def test_modulation_belongs_to_the_stage_that_it_stands_in() -> None:
    def run(net: Any, x: Tensor, guide: Tensor) -> Tensor:
        condition = net.guide(guide)
        a = net.again(net.modulated(net.enc(net.stem(x)), condition))
        return net.out(net.dec(net.up(net.mid(net.down(a))) + a))

    parts = {"enc": block(4), "again": block(4), "down": down(), "mid": block(4), "up": up(4, 4), "dec": block(4)}
    model = Net(run, stem=conv(3, 4), guide=conv(1, 4), modulated=Modulated(), **parts, out=conv(4, 3))
    found = anatomy(model, (1, 3, 64, 96), (1, 1, 64, 96))
    assert stages(found)["encoder 1"] == (0, "enc modulated again")
    assert found.roles["modulated"] == "branch"


def test_as_many_convolutions_on_two_levels() -> None:
    """A decoder block as in LinkNet and an inverted residual block: the stage is where they lead to."""

    def run(net: Any, x: Tensor) -> Tensor:
        a = net.stem(x)
        b = net.enc(a)
        return net.out(net.dec(net.mid(net.down(b)) + 0) + b)

    inverted = nn.Sequential(conv(4, 8, 1), nn.Conv2d(8, 8, 3, 2, padding=1, groups=8), conv(8, 4, 1))
    link = nn.Sequential(conv(4, 4, 1), up(4, 4), conv(4, 4, 1))
    found = anatomy(Net(run, stem=conv(3, 4), enc=inverted, down=down(), mid=block(4), dec=link, out=conv(4, 3)))
    assert stages(found)["encoder 1"] == (1, "enc")
    assert stages(found)["decoder 1"] == (1, "dec")
    assert [stage.name for stage in found.middle()] == ["encoder 1", "decoder 1"]


def test_typed_data() -> None:
    def run(net: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        a = net.enc(net.stem(x))
        b = net.mid(net.down(a))
        return net.out(net.dec(double(b) + net.gate(a))), net.preview(b)

    parts = {"enc": block(4), "down": down(), "mid": block(4), "dec": block(4), "gate": conv(4, 4, 1)}
    found = anatomy(Net(run, stem=conv(3, 4), **parts, out=conv(4, 3), preview=conv(4, 3)))
    assert found.units == (
        Unit("stem", "stem", "stem", 0, 0, 1, True),
        Unit("enc", "encoder 1", "encoder 1", 0, 0, 2, True),
        Unit("down", "down transition", "bottleneck", 0, 1, 1, True),
        Unit("mid", "bottleneck", "bottleneck", 1, 1, 2, True),
        Unit("gate", "skip", "skip", 0, 0, 1, False),
        Unit("dec", "decoder 1", "decoder 1", 0, 0, 2, True),
        Unit("out", "head", "head", 0, 0, 1, True),
        Unit("preview", "aux head", "aux head", 1, 1, 1, False),
    )
    assert found.transitions == (
        Transition("down", "down", 0, 1, "bottleneck"),
        Transition("interpolate", None, 1, 0, "decoder 1"),
    )
    assert [transition.goes_down for transition in found.transitions] == [True, False]
    assert found.passes == (UShape(0, tuple(stage.name for stage in found.stages), 0, 1, 1, 1),)
    assert found.depth == 1
    assert found.main_path[1:] == (
        *("stem", "enc_0", "enc_1", "enc_2", "down", "mid_0", "mid_1", "mid_2"),
        *("interpolate", "add", "dec_0", "dec_1", "dec_2", "out"),
    )
    assert skips(found) == [("add", 0, "encoder 1", "decoder 1")]
    assert [stage.kind for stage in found.of_kind("aux head")] == ["aux head"]
