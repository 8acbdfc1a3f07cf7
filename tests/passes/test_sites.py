"""The places where convolutions occur in the wild: whatever stands there, a roadmap leaves a network that works."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mofa_compiler import Roadmap
from mofa_compiler.passes import (
    DecoupleDownsampling,
    DecoupleUpsampling,
    NarrowPortion,
    PConvToPDWConv,
    RestoreKernels,
    SepConvToPConv,
    WidenPortion,
)
from tests.nets.blocks import Residual, SimpleGate
from tests.rewrites import assert_sound

WIDTH = 8

ROADMAPS = {
    "everything": Roadmap(
        [
            SepConvToPConv(),
            WidenPortion(where=("*",)),
            RestoreKernels(),
            DecoupleUpsampling(),
            DecoupleDownsampling(),
            PConvToPDWConv(threshold=4),
        ]
    ),
    "narrowed": Roadmap([SepConvToPConv(portion="1/2"), NarrowPortion(where=("*",))]),
    "dropped biases": Roadmap(
        [
            SepConvToPConv(pointwise_bias="drop"),
            DecoupleUpsampling(pointwise_bias="drop", convolution="separable", mode="nearest"),
            DecoupleDownsampling(pointwise_bias="drop"),
            PConvToPDWConv(threshold=0),
        ]
    ),
    "resampling only": Roadmap(
        [DecoupleUpsampling(convolution="dense"), DecoupleDownsampling(convolution="separable")]
    ),
}


def conv(inputs: int = WIDTH, outputs: int = WIDTH, kernel_size: Any = 3, **options: Any) -> nn.Conv2d:
    options = {"padding": kernel_size // 2 if isinstance(kernel_size, int) else 0, **options}
    return nn.Conv2d(inputs, outputs, kernel_size, **options)


def depthwise(channels: int = WIDTH, kernel_size: int = 3, **options: Any) -> nn.Conv2d:
    return conv(channels, channels, kernel_size, groups=channels, **options)


def pointwise(inputs: int = WIDTH, outputs: int = WIDTH, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 1, **options)


class NormAct(nn.BatchNorm2d):
    """A batch normalization with its activation, which is traced into: its statistics are read by a function."""

    def forward(self, x: Tensor) -> Tensor:
        train = self.training
        return F.relu(
            F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, train, 0.1, self.eps)
        )


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.reduce, self.expand = pointwise(channels, 2), pointwise(2, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.expand(F.relu(self.reduce(x.mean((2, 3), keepdim=True)))))


class MixFFN(nn.Module):
    """Tokens (B, HW, C), with Linear for a pointwise convolution, and a depthwise one on the image that they form."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.dwconv, self.fc2 = nn.Linear(WIDTH, 16), depthwise(16), nn.Linear(16, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        tokens = self.fc1(x.flatten(2).transpose(1, 2))
        image = self.dwconv(tokens.transpose(1, 2).reshape(batch, 16, height, width))
        tokens = self.fc2(F.gelu(image.flatten(2).transpose(1, 2)))
        return x + tokens.transpose(1, 2).reshape(x.shape)


class ConvNeXt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dwconv, self.norm = depthwise(kernel_size=7), nn.LayerNorm(WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 16), nn.GELU(), nn.Linear(16, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(self.norm(self.dwconv(x).permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


class Cat(nn.Module):
    def __init__(self, body: nn.Module):
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.body(x)], dim=1)


class TwoScales(nn.Module):
    """One module, called at two sizes."""

    def __init__(self, body: nn.Module):
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + F.interpolate(self.body(F.avg_pool2d(x, 2)), scale_factor=2)


class TwoNames(nn.Module):
    """One module under two names, called by both."""

    def __init__(self, body: nn.Module):
        super().__init__()
        self.first, self.second, self.last = body, body, pointwise()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x)) + self.second(x)


class Loop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Sequential(depthwise(), nn.Sequential(pointwise()))) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(WIDTH, WIDTH, 3, 3) / 9)
        self.up = nn.Parameter(torch.randn(WIDTH, WIDTH, 2, 2) / 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.conv2d(F.conv2d(x, self.weight, padding=1), self.weight, None, [2, 2], [1, 1])
        return F.conv_transpose2d(x, self.up, stride=2)


class ToSkip(nn.Module):
    """Enlarged to the size of a skip connection."""

    def __init__(self, body: nn.Module, **options: Any):
        super().__init__()
        self.body, self.options = body, options

    def forward(self, x: Tensor) -> Tensor:
        y = F.max_pool2d(x, 2, ceil_mode=True)
        return x + self.body(F.interpolate(y, size=x.shape[2:], **self.options))


class Unbatched(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(), depthwise(), pointwise(), conv(stride=2), nn.ConvTranspose2d(WIDTH, WIDTH, 2, 2)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.body(x[0]), self.body(x[0] + 1)]).mean(0, keepdim=True).expand_as(x)


class ManyReaders(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.depthwise, self.a, self.b = depthwise(), pointwise(), conv()

    def forward(self, x: Tensor) -> Tensor:
        x = self.depthwise(x)
        return self.a(x) + self.b(x) + x


SITES: dict[str, Callable[[], list[nn.Module]]] = {
    "nothing": lambda: [depthwise(), pointwise()],
    "norm": lambda: [depthwise(bias=False), nn.BatchNorm2d(WIDTH), pointwise()],
    "activation": lambda: [depthwise(), nn.GELU(), pointwise()],
    "norm-activation": lambda: [depthwise(bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU6(), pointwise()],
    "fused norm-act": lambda: [pointwise(bias=False), NormAct(WIDTH), depthwise(), NormAct(WIDTH), pointwise()],
    "group norm": lambda: [depthwise(), nn.GroupNorm(2, WIDTH), pointwise()],
    "gate": lambda: [pointwise(WIDTH, 16), depthwise(16), SimpleGate(), pointwise()],
    "residual": lambda: [Residual(depthwise()), pointwise()],
    "cat": lambda: [Cat(depthwise()), pointwise(16, WIDTH)],
    "convolution": lambda: [depthwise(), conv(), depthwise(), depthwise(kernel_size=5)],
    "squeeze-excite": lambda: [
        Residual(
            nn.Sequential(pointwise(), nn.SiLU(), depthwise(), nn.BatchNorm2d(WIDTH), SqueezeExcite(WIDTH), pointwise())
        )
    ],
    "tokens": lambda: [MixFFN()],
    "convnext": lambda: [ConvNeXt()],
    "dense": lambda: [conv(outputs=12, bias=False), nn.BatchNorm2d(12), nn.ReLU(), conv(12)],
    "dilated": lambda: [conv(padding=2, dilation=2), depthwise(padding=2, dilation=2)],
    "same": lambda: [
        conv(padding="same"),
        conv(kernel_size=4, padding="same"),
        depthwise(kernel_size=2, padding="same"),
    ],
    "valid": lambda: [
        nn.ZeroPad2d(1),
        conv(padding="valid"),
        nn.ReflectionPad2d(2),
        depthwise(kernel_size=5, padding=0),
    ],
    "reflect": lambda: [
        conv(padding_mode="reflect"),
        conv(stride=2, padding_mode="reflect"),
        nn.Upsample(scale_factor=2),
        conv(kernel_size=5, padding_mode="reflect"),
    ],
    "circular": lambda: [
        depthwise(padding_mode="circular"),
        conv(stride=2, padding_mode="circular"),
        conv(padding_mode="replicate"),
        nn.Upsample(scale_factor=2),
    ],
    "oblong": lambda: [
        conv(kernel_size=(1, 3), padding=(0, 1)),
        conv(kernel_size=(3, 1), padding=(1, 0)),
        conv(kernel_size=(1, 3), stride=2, padding=(0, 1)),
        nn.Upsample(scale_factor=2),
    ],
    "grouped": lambda: [conv(groups=2), conv(outputs=16, groups=WIDTH), pointwise(16, WIDTH)],
    "strided": lambda: [
        conv(stride=2),
        depthwise(stride=2),
        conv(kernel_size=2, stride=2, padding=0),
        nn.Upsample(scale_factor=8),
    ],
    "odd channels": lambda: [
        pointwise(WIDTH, 5),
        depthwise(5),
        pointwise(5, 27),
        conv(27, 18),
        conv(18, 3),
        conv(3, 6),
        conv(6, 10),
        conv(10, 2),
        conv(2, WIDTH),
    ],
    "two scales": lambda: [TwoScales(depthwise()), TwoScales(conv())],
    "two scales, resampling": lambda: [
        TwoScales(nn.Sequential(conv(stride=2), nn.ConvTranspose2d(WIDTH, WIDTH, 2, 2)))
    ],
    "two scales, shuffle": lambda: [TwoScales(nn.Sequential(conv(outputs=32), nn.PixelShuffle(2))), nn.MaxPool2d(2)],
    "two names": lambda: [TwoNames(depthwise()), TwoNames(conv())],
    "loop": lambda: [Loop()],
    "functional": lambda: [Functional(), depthwise()],
    "transposed": lambda: [
        nn.ConvTranspose2d(WIDTH, WIDTH, 5, 2, 2, 1),
        nn.ConvTranspose2d(WIDTH, WIDTH, 7, 4, 2, 1),
        nn.MaxPool2d(8),
    ],
    "depthwise transposed": lambda: [
        pointwise(),
        nn.ConvTranspose2d(WIDTH, WIDTH, 4, 2, 1, groups=WIDTH),
        pointwise(),
        nn.MaxPool2d(2),
    ],
    "to skip": lambda: [
        ToSkip(conv()),
        ToSkip(nn.Sequential(depthwise(), pointwise()), mode="bilinear"),
        ToSkip(pointwise(), mode="bicubic"),
    ],
    "to a size": lambda: [
        nn.MaxPool2d(2),
        nn.Upsample(size=(32, 48)),
        conv(),
        nn.MaxPool2d(2),
        nn.Upsample(size=(32, 48)),
        pointwise(),
    ],
    "dropout between": lambda: [
        nn.MaxPool2d(4),
        nn.Upsample(scale_factor=2),
        nn.Identity(),
        conv(outputs=32),
        nn.Dropout(0.1),
        nn.PixelShuffle(2),
    ],
    "unbatched": lambda: [Unbatched()],
    "many readers": lambda: [ManyReaders()],
}


class Net(nn.Module):
    """Input and output convolution, a residual, and a site in between."""

    def __init__(self, layers: list[nn.Module]):
        super().__init__()
        self.first, self.body, self.last = conv(3), nn.Sequential(*layers), conv(outputs=3)

    def forward(self, image: Tensor) -> Tensor:
        return self.last(F.relu(self.body(self.first(image))))


@pytest.mark.parametrize("roadmap", ROADMAPS)
@pytest.mark.parametrize("site", SITES)
@pytest.mark.sample(12)
def test_every_site_stays_sound(site: str, roadmap: str, tmp_path: Path):
    inputs = [torch.rand(1, 3, 32, 48)]
    if site != "to a size":
        inputs.append(torch.rand(1, 3, 40, 64))
    folder = tmp_path / "bundle" if roadmap == "everything" else None
    assert_sound(Net(SITES[site]()), ROADMAPS[roadmap], *inputs, folder=folder)


@pytest.mark.parametrize("site", ["to skip", "nothing"])
def test_odd_sizes(site: str):
    inputs = [torch.rand(1, 3, 33, 47), torch.rand(1, 3, 29, 50)]
    assert_sound(Net(SITES[site]()), ROADMAPS["everything"], *inputs)
