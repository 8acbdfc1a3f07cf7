"""One layer in eight bits, simulated, and as it was afterwards."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mofa_compiler.numerics.fake_quantized import in_eight_bits, quantizable


@pytest.mark.parametrize("layer", [nn.Conv2d(3, 6, 3), nn.ConvTranspose2d(3, 6, 2, 2), nn.Conv2d(3, 3, 3, groups=3)])
def test_weights_by_channel_and_values_by_tensor(layer: nn.Module) -> None:
    net = nn.Sequential(nn.BatchNorm2d(3), layer).eval()
    x, before = torch.randn(1, 3, 16, 16), layer.weight.detach().clone()
    assert quantizable(net) == ["1"]
    with torch.no_grad():
        expected = net(x)
        with in_eight_bits(net, "1"):
            found = net(x)
            axis = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
            kernels = layer.weight.movedim(axis, 0).flatten(1)
            levels = 127 * kernels / before.movedim(axis, 0).flatten(1).abs().amax(1, keepdim=True)
        assert torch.allclose(levels, levels.round(), atol=1e-3)
        assert len(found.unique()) <= 256
        assert 0 < float((found - expected).norm() / expected.norm()) < 0.02
        assert torch.equal(net(x), expected)
