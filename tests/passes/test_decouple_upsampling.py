from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mofa_compiler.nn.partial_conv import PConv2d
from mofa_compiler.passes import DecoupleUpsampling
from mofa_compiler.rewriting.engine import rewrite
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


def test_a_transposed_convolution_leaves_the_upsampling_before_it_alone():
    assert_rewrites(
        DecoupleUpsampling(convolution="dense"),
        chain(nn.Upsample(scale_factor=2), nn.ConvTranspose2d(8, 4, 2, 2)),
        after={
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
    class Resized(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.interpolate(x, scale_factor=0.5)

    model = chain(
        nn.ConvTranspose2d(8, 8, 3, 2),
        nn.ConvTranspose2d(8, 8, 2, 2, groups=2),
        nn.ConvTranspose2d(8, 8, 3, 1, 1),
        nn.ConvTranspose2d(8, 8, 16, 8, 4),
    )
    assert_rewrites(
        DecoupleUpsampling(),
        model,
        after={},
        skips={
            "1": "factor",
            "2": "grouped",
            "3": "factor",
            "4": "too-far",
        },
    )
    model = chain(nn.Upsample(scale_factor=1.5), nn.Conv2d(8, 8, 3, padding=1), Resized(), nn.Conv2d(8, 8, 1))
    assert_rewrites(
        DecoupleUpsampling(),
        model,
        after={},
        skips={
            "2": "factor",
            "4": "not-enlarged",
        },
    )


@pytest.mark.parametrize(
    ("kernel_size", "stride", "padding", "output_padding"),
    [(5, 2, 2, 1), (6, 2, 2, 0), (4, 4, 0, 0), (8, 4, 2, 0), (6, 4, 1, 0), (7, 4, 2, 1), (3, 3, 0, 0)],
)
def test_every_transposed_convolution_by_a_whole_factor(
    kernel_size: int, stride: int, padding: int, output_padding: int
):
    model = chain(nn.ConvTranspose2d(8, 4, kernel_size, stride, padding, output_padding))
    before = network(model)
    after, diff = rewrite(before, DecoupleUpsampling())
    assert diff.edits[0].after.endswith(f"Upsample(x{stride}, bilinear)")
    x = torch.rand(1, 8, 11, 14)
    assert output(after, x).shape == output(before, x).shape


@pytest.mark.parametrize(
    ("convolution", "after"),
    [
        ("pconv", {"2.pconv": "PConv2d(8, k3, bias, portion=1/4)"}),
        ("separable", {"2.depthwise": "Conv2d(8, k3, bias, depthwise)"}),
    ],
)
def test_depthwise_transposed_convolution(convolution: str, after: dict[str, str]):
    model = chain(nn.Conv2d(8, 8, 1), nn.ConvTranspose2d(8, 8, 4, 2, 1, groups=8), nn.Conv2d(8, 8, 1))
    assert_rewrites(
        DecoupleUpsampling(convolution=convolution),  # type: ignore[arg-type]
        model,
        after={"2": None, **after, "2.upsample": "Upsample(x2, bilinear)"},
        skips={},
    )


def test_depthwise_bilinear_enlargement_comes_back_as_such():
    transposed = nn.ConvTranspose2d(8, 8, 4, 2, 1, groups=8).double()
    row = torch.tensor([0.25, 0.75, 0.75, 0.25], dtype=torch.float64)
    with torch.no_grad():
        transposed.weight.copy_(torch.randn(8, 1, 1, 1).double() * row[:, None] * row)
    before = network(chain(nn.Conv2d(8, 8, 1), transposed, nn.Conv2d(8, 8, 1)).double())
    after, _ = rewrite(before, DecoupleUpsampling())
    x = torch.randn(1, 8, 12, 14, dtype=torch.float64)
    inner = (..., slice(6, -6), slice(6, -6))
    torch.testing.assert_close(output(after, x)[inner], output(before, x)[inner], rtol=1e-5, atol=1e-5)


class ToSkip(nn.Module):
    """Enlarged to the size of a skip connection."""

    def __init__(self, conv: nn.Module, mode: str = "bilinear", align_corners: bool | None = None) -> None:
        super().__init__()
        self.first, self.conv, self.last = nn.Conv2d(8, 8, 1), conv, nn.Conv2d(8, 8, 1)
        self.options = {"mode": mode, "align_corners": align_corners}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        y = F.interpolate(F.max_pool2d(x, 2, ceil_mode=True), size=x.shape[2:], **self.options)
        return self.last(x + self.conv(y))


@pytest.mark.parametrize("align_corners", [False, True])
def test_pointwise_commutes_with_an_enlargement_to_a_size(align_corners: bool):
    before = network(ToSkip(nn.Conv2d(8, 8, 1), align_corners=align_corners).double(), 1, 8, 31, 16)
    after, diff = rewrite(before, DecoupleUpsampling())
    (edit,) = diff.edits
    assert (edit.path, edit.exact) == ("conv", True)
    assert edit.after == "Conv2d(8→8, k1, bias) + interpolate(to a size, bilinear)"
    for size in [(31, 16), (24, 21)]:
        x = torch.randn(1, 8, *size, dtype=torch.float64)
        torch.testing.assert_close(output(after, x), output(before, x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("height", "width"), [(32, 24), (31, 23)])
def test_convolution_of_what_is_enlarged_to_a_size(height: int, width: int):
    model = ToSkip(nn.Conv2d(8, 8, 3, padding=1), mode="nearest")
    after, diff = assert_rewrites(
        DecoupleUpsampling(),
        model,
        shape=(1, 8, height, width),
        after={
            "conv": None,
            "conv.pconv": "PConv2d(8, k3, portion=1/4)",
            "conv.pointwise": "Conv2d(8→8, k1, bias)",
        },
        skips={},
    )
    assert diff.edits[0].note == "fitted to an enlargement by 2, which it is at the example size"
    assert diff.edits[0].after.endswith("interpolate(to a size, bilinear)")
    (enlarging,) = [node for node in after.program.graph.nodes if node.target is F.interpolate]
    assert enlarging.kwargs["mode"] == "bilinear"
    assert after.layers["conv.pconv"].input_shape[2:] == (16, 12)
    assert output(after, torch.rand(1, 8, 21, 40)).shape == (1, 8, 21, 40)


def test_upsample_to_a_fixed_size():
    class Pooled(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.max_pool2d(x, 2)

    _, diff = assert_rewrites(
        DecoupleUpsampling(convolution="dense"),
        chain(
            Pooled(),
            nn.Upsample(size=(32, 32)),
            nn.Conv2d(8, 8, 1),
            Pooled(),
            nn.Upsample(size=32),
            nn.Conv2d(8, 8, 3, padding=1),
        ),
        after={
            **{"2": None, "3": None, "5": None, "6": None},
            "3.pointwise": "Conv2d(8→8, k1, bias)",
            "3.upsample": "Upsample(to 32x32, nearest)",
            "6.conv": "Conv2d(8→8, k3, bias)",
            "6.upsample": "Upsample(to 32x32, bilinear)",
        },
    )
    assert [edit.exact for edit in diff.edits if edit.fate != "removed"] == [True, False]


@pytest.mark.slow
def test_identities_between_do_not_hide_an_upsampling():
    layers = [nn.Upsample(scale_factor=2), nn.Identity(), nn.Conv2d(8, 32, 1), nn.Dropout(), nn.PixelShuffle(2)]
    after, diff = rewrite(network(chain(*layers, nn.Conv2d(8, 8, 1))), DecoupleUpsampling())
    assert {edit.path for edit in diff.edits if edit.fate != "removed"} == {"3"}
    assert output(after, torch.rand(1, 8, 12, 10)).shape == (1, 8, 48, 40)


def test_a_size_that_is_asked_for_stays():
    class Asks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.conv, self.last = (nn.Conv2d(8, 8, 1) for _ in range(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = F.interpolate(self.first(x), scale_factor=2)
            height = x.shape[2]
            return self.last(self.conv(x))[:, :, : height - 2]

    assert_rewrites(DecoupleUpsampling(), Asks(), after={}, skips={"conv": "size-asked"})


def test_near_misses_are_said():
    class TwoReaders(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = F.interpolate(x, scale_factor=2)
            return self.a(x) * self.b(x)

    class Shared(nn.Module):
        """A convolution with pixel shuffle behind it at two sizes."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.conv, self.last = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 32, 1), nn.Conv2d(8, 8, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x)
            y = F.pixel_shuffle(self.conv(F.max_pool2d(x, 2)), 2)
            return self.last(y + F.max_pool2d(F.pixel_shuffle(self.conv(x), 2), 2))

    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.conv, self.last = nn.Conv2d(8, 8, 1), nn.Conv2d(16, 8, 3, padding=1), nn.Conv2d(8, 8, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x)
            return self.last(self.conv(torch.cat([F.interpolate(F.max_pool2d(x, 2), scale_factor=2), x], dim=1)))

    assert_rewrites(DecoupleUpsampling(), Shared(), after={}, skips={"conv": "called-twice"})
    assert_rewrites(DecoupleUpsampling(), Joined(), after={}, skips={"conv": "joined"})
    both = "read-elsewhere"
    model = nn.Sequential(nn.Conv2d(8, 8, 1), TwoReaders(), nn.Conv2d(8, 8, 1))
    assert_rewrites(DecoupleUpsampling(), model, after={}, skips={"1.a": both, "1.b": both})
    assert_rewrites(
        DecoupleUpsampling(),
        chain(nn.Upsample(scale_factor=2), nn.ReLU(), nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16)),
        after={},
        skips={"3": "between"},
    )
    model = nn.Sequential(
        nn.Conv2d(8, 8, 1), nn.Conv2d(8, 16, 1), nn.BatchNorm2d(16), nn.PixelShuffle(2), nn.Conv2d(4, 8, 1)
    )
    assert_rewrites(
        DecoupleUpsampling(),
        model,
        after={},
        skips={"1": "between"},
    )


def test_partial_convolutions_that_cannot_be_moved_are_said():
    up, pointwise = nn.Upsample(scale_factor=2), nn.Conv2d(8, 4, 1)
    assert_rewrites(
        DecoupleUpsampling(),
        chain(up, PConv2d(8, 2, dilation=2), pointwise),
        after={},
        skips={"3": "neighbour"},
    )
    assert_rewrites(
        DecoupleUpsampling(),
        chain(up, nn.ReLU(), PConv2d(8, 2), pointwise),
        after={},
        skips={"3": "between"},
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
