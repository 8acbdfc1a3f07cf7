"""Small networks for the tests of calibration, and what is done with them again and again."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from architectures import UNet
from mofa_compiler import Result
from mofa_compiler.analysis.anatomy import infer
from mofa_compiler.analysis.network import Network
from mofa_compiler.frontend import capture
from mofa_compiler.rewriting.diff import Diff

SIZE = 16


class Between(nn.Module):
    """(N, 3, H, W) → (N, 3, H, W): a first convolution to 8 channels, whatever `function` does to them, a last one.

    `function` is called with the module, whose further layers are given by name, and the (N, 8, H, W).
    """

    def __init__(self, function: Callable[[Any, Tensor], Tensor], **layers: nn.Module | nn.Parameter):
        super().__init__()
        self.first, self.last, self.function = conv(3, 8, 3), conv(8, 3, 3), function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(self.function(self, self.first(x)))
        return result


def conv(inputs: int, outputs: int, kernel_size: int = 1, **options: Any) -> nn.Conv2d:
    """A convolution that keeps the size."""
    return nn.Conv2d(inputs, outputs, kernel_size, padding=kernel_size // 2, **options)


def trained_like(model: nn.Module) -> nn.Module:
    """Weights as after training: no zero scales, no unit statistics."""
    for parameter in model.parameters():
        if parameter.dim() <= 1 or parameter.shape[0] == 1:
            nn.init.normal_(parameter, std=0.4)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.running_mean, std=0.3)
    return model


def images(count: int, batch: int = 1, size: int = SIZE, channels: int = 3) -> list[Tensor]:
    """Batches of smooth images with a little noise, in [0, 1]."""
    generator = torch.Generator().manual_seed(7)
    coarse = torch.rand(count * batch, channels, 4, 4, generator=generator)
    smooth = nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    noisy = (0.8 * smooth + 0.2 * torch.rand(smooth.shape, generator=generator)).clamp(0, 1)
    return list(noisy.split(batch))


def network(model: nn.Module, x: Tensor) -> Network:
    program = capture(model, x)
    return Network(program, infer(program))


def run(model: nn.Module, *inputs: Tensor) -> Tensor:
    """The output in eval mode, without gradients."""
    with torch.no_grad():
        result: Tensor = model.eval()(*(x.clone() for x in inputs))
    return result


def distance(one: Tensor, other: Tensor) -> float:
    """Relative to the second."""
    return float((one - other).norm() / other.norm().clamp_min(1e-30))


X = images(4, 2)


def unet(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    return trained_like(UNet(width=4, depth=1, **options)).eval()


def same(one: nn.Module, other: nn.Module) -> bool:
    state = other.state_dict()
    return all(torch.equal(tensor, state[key]) for key, tensor in one.state_dict().items())


def error(result: Result, model: nn.Module, batches: list[Tensor]) -> float:
    """Relative, of all that the networks return on all batches."""
    rewritten, original = copy.deepcopy(result.model), copy.deepcopy(model)
    return distance(
        torch.cat([run(rewritten, x).flatten() for x in batches]),
        torch.cat([run(original, x).flatten() for x in batches]),
    )


HELD_OUT = [X[-1][1:]]
"""What a calibration on `X` does not fit to"""


def output_errors(diff: Diff) -> dict[str, float]:
    """After each step, in percent."""
    found = re.findall(r"([\d.e+-]+) % ([^→]+?)(?: →|$)", diff.options["output_error"])
    return {step: float(percent) for percent, step in found}
