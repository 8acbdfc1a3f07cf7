"""Guards on what is the network's own are dropped, and no other ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mofa_compiler import capture
from mofa_compiler.frontend import GUARDS


class Net(nn.Module):
    def __init__(self, function: Any):
        super().__init__()
        self.function, self.scales = function, nn.Parameter(torch.rand(2, 4))
        self.conv, self.linear = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 24)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x, self.conv(x))


def guards(function: Any) -> list[str]:
    """Names of the guards of a network, which computes what eager does at sizes that they let through."""
    net = Net(function).eval()
    program = capture(net, torch.rand(1, 3, 32, 32))
    found = [node.target.__name__ for node in program.graph.nodes if node.target in GUARDS]
    for shape in [(1, 3, 32, 32)] + [(2, 3, 40, 64), (1, 3, 16, 16)] * (not found):
        x = torch.rand(shape)
        assert torch.equal(program.graph_module(x), net(x))
    return found


def tokens(net: Any, x: Tensor, y: Tensor) -> Tensor:
    flat = y.flatten(2).transpose(1, 2)
    batch, length, channels = flat.shape
    if channels % 2:
        raise ValueError
    q, k, v = net.linear(flat).reshape(batch, length, 3, 2, channels // 2).permute(2, 0, 3, 1, 4).unbind(0)
    return q + k + v * range(q.shape[1])[1]


def many(net: Any, x: Tensor, y: Tensor) -> Tensor:
    for scale in net.scales:
        y = y * scale[0]
    return y * len(net.scales) * {f"{net.scales.shape[1]}": 2.0}["4"]


@pytest.mark.parametrize(
    "function",
    [
        lambda net, x, y: y if y.shape[1] == 8 else x,
        lambda net, x, y: y if F.pad(x, (1, 1)).shape[1] == 3 else x,
        lambda net, x, y: sum(torch.cat([y, x], 1)[:, i : i + 1] for i in range(x.shape[1] + y.size(1))),
        lambda net, x, y: F.avg_pool2d(y, net.scales.shape[0]),
        lambda net, x, y: y * range(net.conv.weight.shape[-1])[2],
        lambda net, x, y: torch.cat([part * i for i, part in enumerate(y.relu().split(2, 1))], 1),
        lambda net, x, y: sum(y.unbind(1)),
        lambda net, x, y: y if y.mean((2, 3), keepdim=True).shape[2] == 1 else x,
        lambda net, x, y: y if (y + 1)[:, None, 2:6].shape[2] == 4 else x,
        many,
        tokens,
    ],
)
def test_no_guard_on_the_networks_own(function: Any) -> None:
    assert guards(function) == []


@pytest.mark.parametrize(
    ("function", "kept"),
    [
        (lambda net, x, y: y if y.shape[2] % 8 == 0 else x, "check_bool"),
        (lambda net, x, y: torch.cat(list(y), 0), "check_length"),
        (lambda net, x, y: y if y[:, :, :24].shape[2] == 24 else x, "check_bool"),
        (lambda net, x, y: torch.cat([part * 2 for part in y.permute(0, 2, 3, 1).split(8, 1)], 1), "check_length"),
        (lambda net, x, y: y if y.reshape(-1, 8).shape[0] > 9 else x, "check_bool"),
        (lambda net, x, y: y if (y.flatten(2) + 1).shape[2] > 9 else x, "check_bool"),
        (lambda net, x, y: y if x.repeat(1, x.shape[2], 1, 1).shape[1] > 9 else x, "check_bool"),
        (lambda net, x, y: y if F.interpolate(y, scale_factor=2).shape[3] > 9 else x, "check_bool"),
    ],
)
def test_a_guard_on_what_may_change_stays(function: Any, kept: str) -> None:
    assert set(guards(function)) == {kept}


def test_channels_of_an_input_that_no_convolution_reads_may_change() -> None:
    class Gray(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2 if x.shape[1] == 1 else x

    graph = capture(Gray(), torch.rand(1, 3, 8, 8)).graph_module
    with pytest.raises(RuntimeError, match="captured for another input size"):
        graph(torch.rand(1, 1, 8, 8))
