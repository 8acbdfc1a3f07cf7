"""Parts that the small networks of these tests are put together from, and the answers in comparable form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from architectures import UNet
from mofa_compiler.analysis.anatomy import Anatomy, infer
from mofa_compiler.frontend import capture


class UNetPair(nn.Module):
    """Two U-Nets in a row, the second refining what the first one made."""

    def __init__(self) -> None:
        super().__init__()
        self.coarse = UNet(width=2, depth=2)
        self.fine = UNet(width=2, depth=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fine(self.coarse(x) + x)


class Net(nn.Module):
    """A network from its parts and the function that runs them."""

    def __init__(self, run: Callable[..., Any], **parts: nn.Module):
        super().__init__()
        self.run = run
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs: Tensor) -> Any:
        return self.run(self, *inputs)


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)


def block(inputs: int, outputs: int | None = None) -> nn.Sequential:
    outputs = outputs or inputs
    return nn.Sequential(conv(inputs, outputs), nn.ReLU(), conv(outputs, outputs))


def up(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, outputs, 2, 2)


def down(channels: int = 4) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 2, 2)


def double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2)


def anatomy(model: nn.Module, *shapes: tuple[int, ...]) -> Anatomy:
    return infer(capture(model, tuple(torch.rand(shape) for shape in shapes or [(1, 3, 64, 96)])))


def stages(found: Anatomy) -> dict[str, tuple[int | None, str]]:
    """Level and units, separated by blanks, of each stage."""
    return {stage.name: (stage.level, " ".join(stage.units)) for stage in found.stages}


def skips(found: Anatomy) -> list[tuple[str, float | None, str, str]]:
    """Kind, level, source stage and target stage of each long skip connection."""
    return [(skip.kind, skip.level, skip.source_stage, skip.target_stage) for skip in found.skips]


def table(found: Anatomy) -> dict[str, tuple[int | None, tuple[str, ...]]]:
    """Level and units of each stage."""
    return {stage.name: (stage.level, stage.units) for stage in found.stages}


def unit_roles(**roles: str) -> dict[str, str]:
    """Roles by unit path, written with two underscores for a dot."""
    return {path.replace("__", "."): role for path, role in roles.items()}
