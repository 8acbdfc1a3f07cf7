from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mofa_compiler.layers import PConv2d
from mofa_compiler.passes import DecoupleUpsampling
from mofa_compiler.rewriting import rewrite
from tests.rewrites import assert_rewrites, chain, network, output


@pytest.mark.parametrize(
    "transposed",
    [
        nn.ConvTranspose2d(8, 4, 2, 2),
        nn.ConvTranspose2d(8, 4, 4, 2, padding=1),
        nn.ConvTranspose2d(8, 4, 3, 2, padding=1, output_padding=1),
    ],
    ids=["k2s2", "k4s2p1", "k3s2p1op1"],
)
def test_transposed_convolution(transposed: nn.ConvTranspose2d):
    assert_rewrites(
        DecoupleUpsampling(),
        chain(transposed),
        after={
            "1": None,
            "1.pconv": "PConv2d(8, k3, portion=1/4)",
            "1.pointwise": "Conv2d(8→4, k1, bias)",
            "1.upsample": "Upsample(x2, bilinear)",
        },
        skips={},
    )


def test_four_times():
    assert_rewrites(
        DecoupleUpsampling(convolution="dense", mode="nearest", pointwise_bias="drop"),
        chain(nn.ConvTranspose2d(8, 4, 4, 4)),
        after={"1": None, "1.conv": "Conv2d(8→4, k3)", "1.upsample": "Upsample(x4, nearest)"},
    )


@pytest.mark.parametrize("functional", [False, True])
def test_pixel_shuffle(functional: bool):
    class Shuffle(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.pixel_shuffle(x, 2)

    shuffle: nn.Module = Shuffle() if functional else nn.PixelShuffle(2)
    model = nn.Sequential(nn.Conv2d(8, 8, 1), nn.Conv2d(8, 16, 1, bias=False), shuffle, nn.Conv2d(4, 8, 1))
    assert_rewrites(
        DecoupleUpsampling(convolution="separable"),
        model,
        after={
            "1": None,
            **({} if functional else {"2": None}),
            "1.depthwise": "Conv2d(8, k3, depthwise)",
            "1.pointwise": "Conv2d(8→4, k1)",
            "1.upsample": "Upsample(x2, bilinear)",
        },
    )


def test_upsample_then_convolve():
    assert_rewrites(
        DecoupleUpsampling(convolution="dense"),
        chain(nn.Upsample(scale_factor=2), nn.Conv2d(8, 4, 3, padding=1)),
        after={
            "1": None,
            "2": None,
            "2.conv": "Conv2d(8→4, k3, bias)",
            "2.upsample": "Upsample(x2, bilinear)",
        },
    )


def test_pointwise_commutes_exactly():
    model = chain(nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(8, 4, 1)).double()
    before = network(model)
    after, diff = assert_rewrites(
        DecoupleUpsampling(),
        model,
        after={
            "1": None,
            "2": None,
            "2.pointwise": "Conv2d(8→4, k1, bias)",
            "2.upsample": "Upsample(x2, bilinear)",
        },
    )
    assert [edit.exact for edit in diff.edits if edit.path == "2"] == [True]
    x = torch.randn(1, 8, 6, 10, dtype=torch.float64)
    torch.testing.assert_close(output(after, x), output(before, x), rtol=1e-12, atol=1e-12)


def test_partial_convolution_of_an_enlarged_tensor():
    model = chain(nn.Upsample(scale_factor=2, mode="bilinear"), PConv2d(8, 2), nn.Conv2d(8, 4, 1))
    assert_rewrites(
        DecoupleUpsampling(),
        model,
        after={
            "1": None,
            "3": None,
            "3.pointwise": "Conv2d(8→4, k1, bias)",
            "3.upsample": "Upsample(x2, bilinear)",
        },
    )


def test_refusals():
    class ToSize(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.interpolate(x, size=(64, 64))

    model = chain(nn.ConvTranspose2d(8, 8, 3, 2), nn.ConvTranspose2d(8, 8, 2, 2, groups=2))
    assert_rewrites(
        DecoupleUpsampling(),
        model,
        after={},
        skips={"1": "does not enlarge by a whole factor", "2": "is grouped (groups=2)"},
    )
    assert_rewrites(
        DecoupleUpsampling(),
        chain(ToSize(), nn.Conv2d(8, 8, 3, padding=1)),
        after={},
        skips={"2": "is enlarged to a size or by a fraction, not by a whole factor"},
    )


def test_near_misses_are_said():
    class TwoReaders(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = F.interpolate(x, scale_factor=2)
            return self.a(x) * self.b(x)

    both = "the upsampling that it reads is read by others too"
    model = nn.Sequential(nn.Conv2d(8, 8, 1), TwoReaders(), nn.Conv2d(8, 8, 1))
    assert_rewrites(DecoupleUpsampling(), model, after={}, skips={"1.a": both, "1.b": both})
    assert_rewrites(
        DecoupleUpsampling(),
        chain(nn.Upsample(scale_factor=2), nn.ReLU(), nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16)),
        after={},
        skips={"3": "there is a layer (activation) between it and the upsampling"},
    )
    model = nn.Sequential(
        nn.Conv2d(8, 8, 1), nn.Conv2d(8, 16, 1), nn.BatchNorm2d(16), nn.PixelShuffle(2), nn.Conv2d(4, 8, 1)
    )
    assert_rewrites(
        DecoupleUpsampling(),
        model,
        after={},
        skips={"1": "there is a layer (norm) between it and the pixel shuffle"},
    )


def test_partial_convolutions_that_cannot_be_moved_are_said():
    up, pointwise = nn.Upsample(scale_factor=2), nn.Conv2d(8, 4, 1)
    assert_rewrites(
        DecoupleUpsampling(),
        chain(up, PConv2d(8, 2, dilation=2), pointwise),
        after={},
        skips={"3": "the partial convolution in front of it has a dilated, even or oblong kernel"},
    )
    assert_rewrites(
        DecoupleUpsampling(),
        chain(up, nn.ReLU(), PConv2d(8, 2), pointwise),
        after={},
        skips={"3": "there is a layer (activation) between it and the upsampling"},
    )


def test_fit_recovers_what_the_new_form_can_express():
    """Bilinear interpolation written as a transposed convolution (k4 s2 p1) comes back as just that."""
    transposed = nn.ConvTranspose2d(8, 8, 4, 2, padding=1).double()
    row = torch.tensor([0.25, 0.75, 0.75, 0.25], dtype=torch.float64)
    with torch.no_grad():
        transposed.weight.copy_(torch.randn(8, 8, 1, 1).double() * row[:, None] * row)
    before = network(chain(transposed).double())
    after, _ = rewrite(before, DecoupleUpsampling())
    x = torch.randn(1, 8, 12, 14, dtype=torch.float64)
    inner = (..., slice(6, -6), slice(6, -6))  # at the border a transposed convolution fades to zero
    torch.testing.assert_close(output(after, x)[inner], output(before, x)[inner], rtol=1e-5, atol=1e-5)
