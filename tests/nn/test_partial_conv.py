from __future__ import annotations

import pytest
import torch

from mofa_compiler.nn.partial_conv import PartialConv2d, PConv2d, PDWConv2d


@pytest.mark.parametrize("kind", [PConv2d, PDWConv2d])
@pytest.mark.parametrize("kernel_size", [3, (1, 5), 4])
@pytest.mark.parametrize("padding_mode", ["zeros", "reflect", "circular"])
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_untouched_channels_pass(kind: type[PartialConv2d], kernel_size, padding_mode):
    layer = kind(8, 3, kernel_size, dilation=2, padding_mode=padding_mode, bias=True)
    x = torch.rand(2, 8, 12, 13)
    y = layer(x)
    assert y.shape == x.shape
    assert torch.equal(y[:, 3:], x[:, 3:])
    assert torch.equal(y[:, :3], layer.conv(x[:, :3]))


def test_groups_and_whole_portion():
    assert PDWConv2d(8, 4).conv.groups == 4
    assert PConv2d(8, 4, dtype=torch.float64).conv.weight.dtype == torch.float64
    layer = PConv2d(4, 4)
    x = torch.rand(1, 4, 8, 8)
    assert torch.equal(layer(x), layer.conv(x))


@pytest.mark.parametrize("convolved", [0, 9])
def test_bad_portion(convolved: int):
    with pytest.raises(ValueError, match=f"convolved={convolved} must lie between 1 and channels=8"):
        PConv2d(8, convolved)
