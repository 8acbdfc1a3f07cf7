"""A small U-Net that does something, and examples for it."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from architectures import UNet
from mofa_compiler import Result, apply

SIZE = 16


def network(depth: int = 1) -> nn.Module:
    """A U-Net with batch normalization whose statistics are not those that it starts with."""
    torch.manual_seed(0)
    model = UNet(width=4, depth=depth)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.running_mean, std=0.1)
    return model.eval()


def rewritten(model: nn.Module) -> Result:
    return apply(model, "mofa", torch.rand(1, 3, SIZE, SIZE))


@functools.cache
def images(count: int = 10) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(3, SIZE, SIZE, generator=generator) for _ in range(count)]


def pairs(count: int = 10) -> list[tuple[Tensor, Tensor]]:
    """What the network is given, and something near to what it returns."""
    model = network()
    with torch.no_grad():
        return [(image, model(image[None])[0] + 0.1 * image) for image in images(count)]


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
