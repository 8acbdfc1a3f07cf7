"""Which stage the parts of unusual networks belong to, labels in full; and the anatomy as typed data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mofa_compiler.analysis.anatomy import Transition, Unit, UShape
from tests.analysis.anatomy.small import Net, anatomy, block, conv, double, skips, stages, up


def down(channels: int = 4) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 2, 2)


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
