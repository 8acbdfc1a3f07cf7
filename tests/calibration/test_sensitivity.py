"""What the output feels of errors at a convolution: by channel, without gradients of the network's own weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mofa_compiler.analysis.anatomy import infer
from mofa_compiler.analysis.network import Network
from mofa_compiler.calibration.batches import Batches
from mofa_compiler.calibration.sensitivity import sensitivities
from mofa_compiler.frontend import capture
from mofa_compiler.graph.call_spec import CallSpec
from tests.calibration.small import images


class Chain(nn.Module):
    """Convolutions of which the last feels the channels of the first by known factors, and one that is cut off."""

    def __init__(self, factors: Tensor) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, len(factors), 3, padding=1)
        self.last = nn.Conv2d(len(factors), len(factors), 1)
        self.cut = nn.Conv2d(3, len(factors), 1)
        self.last.weight.data = torch.diag(factors)[..., None, None]

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x).add_(1.0)
        return self.last(y.mul_(2.0)) + self.cut(x).detach()  # type: ignore[no-any-return]


def felt(net: nn.Module) -> dict[str, Tensor]:
    found = Batches(Path("unused"))
    for image in images(2, 2):
        found.append(CallSpec((image,)))
    program = capture(net.eval(), images(1)[0])
    return {str(node.target): value for node, value in sensitivities(Network(program, infer(program)), found).items()}


def test_energies_of_gradients_by_channel() -> None:
    factors = torch.tensor([1.0, 2.0, 0.0, 0.5])
    net = Chain(factors)
    before = [parameter.clone() for parameter in net.parameters()]
    found = felt(net)
    assert set(found) == {"first", "last"}  # nothing is felt of what is cut off
    expected = (2 * factors).double().square()
    ratio = found["first"] / found["last"]
    assert ratio.tolist() == pytest.approx(expected.tolist(), rel=1e-4)  # noise and its scale are the same for both
    assert all(parameter.grad is None for parameter in net.parameters())
    assert all(torch.equal(old, new) for old, new in zip(before, net.parameters(), strict=True))


class Forward(torch.autograd.Function):
    """Somebody's own, of which nobody needed gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x


class Without(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return Forward.apply(self.first(x))  # type: ignore[no-any-return, no-untyped-call]


class Labels(Without):
    def forward(self, x: Tensor) -> Tensor:
        return self.first(x).argmax(1)


@pytest.mark.parametrize("net", [Without(), Labels()])
def test_networks_without_gradients(net: nn.Module) -> None:
    assert not felt(net)
