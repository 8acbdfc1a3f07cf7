from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from architectures import NAFNet
from mofa_compiler.passes import LowerShuffle
from mofa_compiler.rewriting.engine import rewrite
from tests.rewrites import assert_lowers, assert_same_outputs, chain, network, scattered


def even(conv: nn.Conv2d, factor: int) -> nn.Conv2d:
    """A convolution whose bias is one number a pixel."""
    assert conv.bias is not None
    conv.bias.data = torch.randn(conv.out_channels // factor**2).repeat_interleave(factor**2)
    return conv


def shuffled(conv: nn.Conv2d, factor: int) -> nn.Sequential:
    model = scattered(chain(nn.ReLU(), conv, nn.PixelShuffle(factor), nn.Conv2d(conv.out_channels // factor**2, 8, 1)))
    if conv.bias is not None:
        even(conv, factor)
    return model


def test_pointwise_convolution_and_shuffle():
    model = shuffled(nn.Conv2d(8, 36, 1, groups=2), 3).double()
    before = network(model, 1, 8, 7, 9)
    after, diff = rewrite(before, LowerShuffle())
    assert next((e.path, e.before, e.after) for e in diff.rewritten) == (
        "2",
        "Conv2d(8→36, k1, bias, groups=2)",
        "ConvTranspose2d(8→4, k3, s3, bias, groups=2)",
    )
    assert sum(edit.macs for edit in diff.edits) == 0
    assert_same_outputs(model, after, (1, 8, 7, 9))


def test_a_larger_kernel_only_where_it_is_asked_for():
    for geometry in ({"padding": 1}, {"padding": 0}, {"padding": (2, 1)}):
        model = shuffled(nn.Conv2d(8, 16, 3, bias=False, **geometry), 2).double()  # type: ignore[arg-type]
        before = network(model, 1, 8, 7, 9)
        assert [skip.code for skip in rewrite(before, LowerShuffle())[1].skips] == ["threshold"]
        after, diff = rewrite(before, LowerShuffle(kernel=3))
        assert diff.edits[0].after == "ConvTranspose2d(8→4, k6, s2)"
        assert_same_outputs(model, after, (1, 8, 7, 9))


def test_a_bias_that_differs_by_pixel_stays():
    model = chain(nn.ReLU(), nn.Conv2d(8, 16, 1), nn.PixelShuffle(2), nn.Conv2d(4, 8, 1))
    assert_lowers(LowerShuffle(), model, {}, skips={"2": "bias"})


def test_what_is_no_transposed_convolution():
    for conv in (
        nn.Conv2d(8, 16, 1, 2),
        nn.Conv2d(8, 16, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(8, 16, 1, padding=1),
    ):
        _, diff = rewrite(network(shuffled(conv, 2).double(), 1, 8, 8, 8), LowerShuffle(kernel=3))
        assert [skip.code for skip in diff.skips] == ["geometry"]
    _, diff = rewrite(network(shuffled(nn.Conv2d(8, 8, 1, groups=4), 2).double()), LowerShuffle())
    assert [skip.code for skip in diff.skips] == ["grouped"]


def test_a_shuffle_that_does_not_alone_read_it_is_left_alone():
    class Read(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(8, 16, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return F.pixel_shuffle(y, 2) + y.mean()

    _, diff = assert_lowers(LowerShuffle(), chain(Read(), nn.Conv2d(4, 8, 1)), {})
    assert not diff.edits


def test_nafnet():
    model = scattered(NAFNet(width=8)).double()
    after, diff = rewrite(network(model, 1, 3, 32, 32), LowerShuffle())
    assert [edit.path for edit in diff.rewritten if edit.fate == "exact"] == ["ups.0.0", "ups.1.0", "ups.2.0"]
    assert_same_outputs(model, after, (1, 3, 32, 32))
