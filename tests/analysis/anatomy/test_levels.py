"""Levels where sizes alone mislead: odd and padded inputs, shrinking convolutions, turned images, tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mofa_compiler.analysis.anatomy import infer
from mofa_compiler.base.errors import AnatomyError
from mofa_compiler.frontend import capture
from tests.analysis.anatomy.small import Net, anatomy, block, conv, skips, stages, up
from tests.raising import raising


def levels_along(model: nn.Module, *shapes: tuple[int, ...]) -> list[float]:
    """The levels that the main path comes through, each once in a row."""
    found = anatomy(model, *shapes)
    met = [level for name in found.main_path if (level := found.levels[name]) is not None]
    return [level for i, level in enumerate(met) if i == 0 or level != met[i - 1]]


def crop_like(x: Tensor, like: Tensor) -> Tensor:
    top, left = (x.shape[2] - like.shape[2]) // 2, (x.shape[3] - like.shape[3]) // 2
    return x[:, :, top : top + like.shape[2], left : left + like.shape[3]]


def shrinking_unet() -> nn.Module:
    def narrow(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(inputs, outputs, 3), nn.ReLU(), nn.Conv2d(outputs, outputs, 3))

    def run(net: Any, x: Tensor) -> Tensor:
        a = net.enc1(x)
        b = net.enc2(F.max_pool2d(a, 2))
        c = net.enc3(F.max_pool2d(b, 2))
        x = net.up3(net.bottom(F.max_pool2d(c, 2)))
        x = net.up2(net.dec3(torch.cat([crop_like(c, x), x], 1)))
        x = net.up1(net.dec2(torch.cat([crop_like(b, x), x], 1)))
        return net.out(net.dec1(torch.cat([crop_like(a, x), x], 1)))

    return Net(
        run,
        enc1=narrow(3, 4),
        enc2=narrow(4, 4),
        enc3=narrow(4, 4),
        bottom=narrow(4, 4),
        **{f"up{i}": up(4, 4) for i in (3, 2, 1)},
        **{f"dec{i}": narrow(8, 4) for i in (3, 2, 1)},
        out=conv(4, 3, 1),
    )


def test_convolutions_without_padding() -> None:
    found = anatomy(shrinking_unet(), (1, 3, 124, 156))
    assert stages(found) == {
        "encoder 1": (0, "enc1"),
        "encoder 2": (1, "enc2"),
        "encoder 3": (2, "enc3"),
        "bottleneck": (3, "bottom"),
        "decoder 1": (2, "up3 dec3"),
        "decoder 2": (1, "up2 dec2"),
        "decoder 3": (0, "up1 dec1"),
        "head": (0, "out"),
    }
    assert [level for _, level, _, _ in skips(found)] == [2, 1, 0]


def resizing_unet(*, ceil_mode: bool = False, multiple: int = 1) -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        a = net.enc1(F.pad(x, (0, -width % multiple, 0, -height % multiple), mode="replicate"))
        b = net.enc2(net.pool(a))
        x = F.interpolate(net.bottom(net.pool(b)), size=b.shape[-2:])
        x = F.interpolate(net.dec2(x + b), size=a.shape[-2:])
        return net.out(net.dec1(x + a))[..., :height, :width]

    parts = {name: block(4) for name in ("enc2", "bottom", "dec2", "dec1")}
    return Net(run, enc1=block(3, 4), pool=nn.MaxPool2d(2, ceil_mode=ceil_mode), **parts, out=conv(4, 3))


RESIZED = {
    "encoder 1": (0, "enc1"),
    "encoder 2": (1, "enc2"),
    "bottleneck": (2, "bottom"),
    "decoder 1": (1, "dec2"),
    "decoder 2": (0, "dec1"),
    "head": (0, "out"),
}


@pytest.mark.parametrize("size", [(96, 160), (65, 97), (67, 9), (130, 90)], ids=str)
@pytest.mark.parametrize("ceil_mode", [False, True], ids=["floor", "ceil"])
def test_odd_sizes(size: tuple[int, int], ceil_mode: bool) -> None:
    found = anatomy(resizing_unet(ceil_mode=ceil_mode), (1, 3, *size))
    assert stages(found) == RESIZED
    assert skips(found) == [("add", 1, "encoder 2", "decoder 1"), ("add", 0, "encoder 1", "decoder 2")]


def test_a_network_that_pads_itself() -> None:
    assert stages(anatomy(resizing_unet(multiple=32), (1, 3, 90, 130))) == RESIZED


def test_strides_of_more_than_two() -> None:
    steps = {"down": nn.Conv2d(4, 4, 4, 4), "up": nn.ConvTranspose2d(4, 4, 4, 4)}
    run = lambda net, x: net.out(net.up(net.down(net.stem(x))))  # noqa: E731
    assert levels_along(Net(run, stem=conv(3, 4), **steps, out=conv(4, 3)), (1, 3, 60, 92)) == [0, 2, 0]


def test_an_image_turned_by_a_quarter() -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        x = net.inside(net.down(net.stem(x)).transpose(2, 3))
        return net.out(net.up(x).flip(2).transpose(2, 3))

    model = Net(run, stem=conv(3, 4), down=conv(4, 4, stride=2), inside=block(4), up=up(4, 4), out=conv(4, 3))
    assert levels_along(model) == [0, 1, 0]


class Tokens(nn.Module):
    """A transformer's block on (N, H * W, C), between a patch embedding and its way back."""

    def __init__(self, patch: int, class_token: bool):
        super().__init__()
        self.embed = nn.Conv2d(3, 8, patch, patch)
        self.token = nn.Parameter(torch.zeros(1, 1, 8)) if class_token else None
        self.mix, self.norm = nn.Linear(8, 8), nn.LayerNorm(8)
        self.back = nn.ConvTranspose2d(8, 3, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        rows, columns = x.shape[-2:]
        x = x.flatten(2).transpose(1, 2)
        if self.token is not None:
            x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        x = self.norm(x + self.mix(x))
        if self.token is not None:
            x = x[:, 1:]
        return self.back(x.transpose(1, 2).reshape(x.shape[0], 8, rows, columns))


@pytest.mark.parametrize("class_token", [False, True], ids=["bare", "class token"])
@pytest.mark.parametrize("size", [(64, 96), (90, 133)], ids=str)
def test_tokens_are_on_the_level_of_their_image(size: tuple[int, int], class_token: bool) -> None:
    found = anatomy(Tokens(8, class_token), (1, 3, *size))
    assert {found.levels[name] for name in ("embed", "transpose", "mix", "norm")} == {3}


def test_channels_last_where_channels_are_as_many_as_columns() -> None:
    def merge(x: Tensor) -> Tensor:
        parts = [x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]
        return torch.cat(parts, -1)

    def expand(x: Tensor) -> Tensor:
        rows, columns, channels = x.shape[1:]
        x = x.view(x.shape[0], rows, columns, 2, 2, channels // 4).permute(0, 1, 3, 2, 4, 5)
        return x.reshape(x.shape[0], 2 * rows, 2 * columns, channels // 4)

    def run(net: Any, x: Tensor) -> Tensor:
        a = net.enc(net.embed(x).permute(0, 2, 3, 1))
        x = net.mid(net.down(merge(a)))
        x = net.dec(torch.cat([expand(net.up(x)), a], -1))
        return net.out(x.permute(0, 3, 1, 2))

    def mlp(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(nn.Linear(inputs, outputs), nn.GELU(), nn.Linear(outputs, outputs))

    parts = {"enc": mlp(32, 32), "mid": mlp(16, 16), "dec": mlp(64, 32)}
    linear = {"down": nn.Linear(128, 16), "up": nn.Linear(16, 128)}
    found = anatomy(Net(run, embed=conv(3, 32), **parts, **linear, out=conv(32, 3)), (1, 3, 32, 32))
    assert stages(found) == {
        "stem": (0, "embed"),
        "encoder 1": (0, "enc"),
        "bottleneck": (1, "down mid up"),
        "decoder 1": (0, "dec"),
        "head": (0, "out"),
    }
    assert skips(found) == [("cat", 0, "encoder 1", "decoder 1")]


def test_another_image_has_a_level_too() -> None:
    def run(net: Any, x: Tensor, guide: Tensor) -> Tensor:
        return net.out(net.down(net.stem(x)) + net.guide(guide))

    model = Net(run, stem=conv(3, 4), down=conv(4, 4, stride=2), guide=conv(1, 4), out=conv(4, 3))
    found = anatomy(model, (1, 3, 64, 96), (1, 1, 32, 48))
    assert found.levels["guide"] == 1
    assert found.roles["guide"] == "conditioning"


def test_a_size_carries_no_data_and_a_write_does() -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        x = net.down(x)
        whole = torch.zeros(x.shape[0], 4, 2 * x.shape[2], 2 * x.shape[3])
        for i in (0, 1):
            for j in (0, 1):
                whole[:, :, i::2, j::2] = x
        return net.out(whole)

    found = anatomy(Net(run, down=conv(3, 4, stride=2), out=conv(4, 3)))
    assert "down" in found.main_path
    assert found.reason == "the resolution goes down once and up once, but no skip connection spans that"


def test_an_error_names_the_inputs_and_a_next_step() -> None:
    with raising(AnatomyError, "wrong-input", "(2, 4)"):
        infer(capture(nn.Linear(4, 4), torch.rand(2, 4)))


@pytest.mark.parametrize("size", [(64, 96), (64, 64)], ids=str)
@pytest.mark.parametrize("stride", [(1, 2), (2, 1)], ids=str)
@pytest.mark.parametrize("way", ["steps", "sizes", "rows"])
def test_levels_along_one_axis(stride: tuple[int, int], size: tuple[int, int], way: str) -> None:
    """As in speech: by strides and factors, by pooling to a size and back, and by pixels that become channels."""
    taller, wider = stride

    def shrink(net: Any, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        if way == "steps":
            return net.down(x)
        if way == "sizes":
            return net.down(F.adaptive_avg_pool2d(x, (h // taller, w // wider)))
        x = x.view(n, c, h // taller, taller, w // wider, wider).permute(0, 1, 3, 5, 2, 4)
        return net.down(x.reshape(n, 2 * c, h // taller, w // wider))

    def run(net: Any, x: Tensor) -> Tensor:
        a = net.enc(net.stem(x))
        x = net.mid(shrink(net, a))
        x = F.interpolate(x, scale_factor=stride) if way == "steps" else F.interpolate(x, size=a.shape[-2:])
        return net.out(net.dec(x + a))

    down = nn.Conv2d(4, 4, stride, stride) if way == "steps" else conv(8 if way == "rows" else 4, 4)
    parts = {"stem": conv(3, 4), "enc": block(4), "down": down, "mid": block(4), "dec": block(4), "out": conv(4, 3)}
    found = anatomy(Net(run, **parts), (1, 3, *size))
    assert stages(found) == {
        "stem": (0, "stem"),
        "encoder 1": (0, "enc"),
        "bottleneck": (1, "down mid"),
        "decoder 1": (0, "dec"),
        "head": (0, "out"),
    }
    assert skips(found) == [("add", 0, "encoder 1", "decoder 1")]


def test_an_axis_that_shrinks_by_more_decides() -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        a = net.enc(net.stem(x))
        return net.out(net.dec(net.up(net.mid(net.down(a))) + a))

    down, upward = nn.Conv2d(4, 4, (2, 4), (2, 4)), nn.ConvTranspose2d(4, 4, (2, 4), (2, 4))
    parts = {"enc": block(4), "down": down, "mid": block(4), "up": upward, "dec": block(4)}
    assert levels_along(Net(run, stem=conv(3, 4), **parts, out=conv(4, 3)), (1, 3, 64, 96)) == [0, 2, 0]


def test_what_comes_back_to_a_size_is_on_its_level() -> None:
    """Rounded sizes of a side branch by 2, 3 and 4 say nothing about the size of what it came from."""

    def run(net: Any, x: Tensor) -> Tensor:
        a = y = net.stem(x)
        for shrink in net.shrink:
            y = shrink(y)
        return net.out(net.after(F.interpolate(y, size=a.shape[-2:])) + a)

    shrink = nn.ModuleList(nn.Conv2d(4, 4, kernel, stride) for kernel, stride in ((3, 2), (3, 3), (5, 4)))
    found = anatomy(Net(run, stem=conv(3, 4), shrink=shrink, after=conv(4, 4), out=conv(4, 3)), (1, 3, 64, 64))
    assert {name: found.levels[name] for name in ("interpolate", "after", "out")} == dict.fromkeys(
        ("interpolate", "after", "out"), 0
    )


def test_tokens_in_heads_are_no_image() -> None:
    """Four heads of four channels: (N, pixels, 4, 4) has the form of a small square image."""

    def run(net: Any, x: Tensor) -> Tensor:
        x = net.down(x)
        n, c, h, w = x.shape
        tokens = net.mix(x.flatten(2).transpose(1, 2)).view(n, h * w, 4, 4).transpose(1, 2)
        y = F.scaled_dot_product_attention(tokens, tokens, tokens).transpose(1, 2).reshape(n, h * w, c)
        return net.out(net.back(net.after(y).transpose(1, 2).reshape(n, c, h, w)))

    linear = {"mix": nn.Linear(16, 16), "after": nn.Linear(16, 16)}
    parts = {"down": conv(3, 16, stride=2), "back": up(16, 4), "out": conv(4, 3)}
    found = anatomy(Net(run, **parts, **linear), (1, 3, 64, 64))
    assert {found.levels[name] for name in ("view", "scaled_dot_product_attention", "after", "reshape_1")} == {1}


def test_a_channel_that_is_dropped_and_an_image_that_is_turned() -> None:
    def run(net: Any, spectrum: Tensor) -> Tensor:
        real, imaginary = spectrum[..., 0].permute(0, 2, 1), spectrum[..., 1].permute(0, 2, 1)
        return net.out(net.up(net.down(torch.stack([real, imaginary], 1))))

    parts = {"down": conv(2, 4, stride=2), "up": up(4, 4), "out": conv(4, 2)}
    assert levels_along(Net(run, **parts), (1, 256, 64, 2)) == [0, 1, 0]
