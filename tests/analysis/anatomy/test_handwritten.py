"""Stage inference on networks of other kinds, each written for what it asks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mofa_compiler.analysis.anatomy import infer
from mofa_compiler.base.errors import AnatomyError
from mofa_compiler.frontend import capture
from tests.analysis.anatomy.small import UNetPair, anatomy, table
from tests.raising import raising


class ResidualBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(F.relu(self.conv1(x))) + self.shortcut(x))


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.layer1 = nn.Sequential(ResidualBlock(4, 8, 2), ResidualBlock(8, 8))
        self.layer2 = nn.Sequential(ResidualBlock(8, 16, 2), ResidualBlock(16, 16))
        self.fc = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layer2(self.layer1(self.conv1(x))).mean((2, 3)))


class Autoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 8, 3, 2, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
        self.up = nn.Sequential(nn.ConvTranspose2d(8, 8, 2, 2), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.down(x)) + x


def dncnn() -> nn.Module:
    layers = [nn.Conv2d(3, 8, 3, padding=1)]
    for _ in range(4):
        layers += [nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(8, 3, 3, padding=1))


def super_resolution() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1), nn.PixelShuffle(2))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (dncnn(), "nothing on the main path changes the resolution"),
        (Classifier(), "the resolution goes down twice and never up again"),
        (Autoencoder(), "the resolution goes down once and up once, but no skip connection spans that"),
        (super_resolution(), "the resolution goes up once without having gone down before"),
    ],
    ids=["dncnn", "classifier", "autoencoder", "super-resolution"],
)
def test_what_is_no_unet_says_why(model: nn.Module, reason: str) -> None:
    found = anatomy(model)
    assert not found.is_unet
    assert found.reason == reason


def test_a_network_on_one_level_is_one_body() -> None:
    found = anatomy(dncnn())
    assert [(stage.name, stage.kind, stage.level) for stage in found.stages] == [("body", "body", 0)]
    assert not found.transition_paths
    assert found.middle() == ()


def test_a_network_without_convolutions_still_places_its_modules() -> None:
    found = anatomy(nn.Sequential(nn.ReLU(), nn.AvgPool2d(2)))
    stage = found.stage_of("1")
    assert stage and stage.name == "body"


def test_a_network_of_functions_only() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(3, 3, 3, 3))

        def forward(self, x: Tensor) -> Tensor:
            y = F.conv2d(F.max_pool2d(F.conv2d(x, self.weight, padding=1), 2), self.weight, padding=1)
            return x + F.interpolate(y, scale_factor=2)

    found = anatomy(Functional())
    assert found.stages == ()
    assert not found.is_unet


def test_an_input_that_is_no_image_is_an_error() -> None:
    with raising(AnatomyError, "wrong-input"):
        infer(capture(nn.Linear(4, 4), torch.rand(2, 4)))


class FunctionalDecoder(nn.Module):
    """Convolutions in a list, max_pool2d and interpolate as functions, skips by addition."""

    def __init__(self) -> None:
        super().__init__()
        self.first = ResidualBlock(3, 4)
        self.encode = nn.ModuleList([ResidualBlock(4, 4), ResidualBlock(4, 4)])
        self.bottom = ResidualBlock(4, 4)
        self.decode = nn.ModuleList([ResidualBlock(4, 4), ResidualBlock(4, 4), ResidualBlock(4, 4)])
        self.last = nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        skips = []
        for block in self.encode:
            skips.append(x)
            x = block(F.max_pool2d(x, 2))
        skips.append(x)
        x = self.bottom(F.max_pool2d(x, 2))
        for block in self.decode:
            x = block(F.interpolate(x, scale_factor=2) + skips.pop())
        return self.last(x)


def test_functional_decoder_with_skips_by_addition() -> None:
    found = anatomy(FunctionalDecoder())
    assert table(found) == {
        "encoder 1": (0, ("first",)),
        "encoder 2": (1, ("encode.0",)),
        "encoder 3": (2, ("encode.1",)),
        "bottleneck": (3, ("bottom",)),
        "decoder 1": (2, ("decode.0",)),
        "decoder 2": (1, ("decode.1",)),
        "decoder 3": (0, ("decode.2",)),
        "head": (0, ("last",)),
    }
    assert [skip.kind for skip in found.skips] == ["add"] * 3
    assert not found.transition_paths


class ResNetEncoder(nn.Module):
    """Strided residual stages as the encoder, transposed convolutions and double convolutions as the decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.layer1 = nn.Sequential(ResidualBlock(4, 8, 2), ResidualBlock(8, 8))
        self.layer2 = nn.Sequential(ResidualBlock(8, 16, 2), ResidualBlock(16, 16))
        self.center = ResidualBlock(16, 16)
        self.up1 = nn.ConvTranspose2d(16, 8, 2, 2)
        self.fuse1 = ResidualBlock(16, 8)
        self.up2 = nn.ConvTranspose2d(8, 4, 2, 2)
        self.fuse2 = ResidualBlock(8, 4)
        self.out = nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.conv1(x)
        b = self.layer1(a)
        c = self.center(self.layer2(b))
        b = self.fuse1(torch.cat([self.up1(c), b], 1))
        return self.out(self.fuse2(torch.cat([self.up2(b), a], 1)))


def test_resnet_encoder() -> None:
    found = anatomy(ResNetEncoder())
    assert table(found) == {
        "stem": (0, ("conv1",)),
        "encoder 1": (1, ("layer1",)),
        "encoder 2": (2, ("layer2",)),
        "bottleneck": (2, ("center",)),
        "decoder 1": (1, ("up1", "fuse1")),
        "decoder 2": (0, ("up2", "fuse2")),
        "head": (0, ("out",)),
    }
    convolutions = ("conv1", "conv2", "shortcut")
    assert found.transition_paths == {f"layer{i}.0.{name}" for i in (1, 2) for name in convolutions}


class FlatUNet(nn.Module):
    """Every layer an attribute of the root; one pooling module and one activation shared by all stages."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1a, self.conv1b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.conv2a, self.conv2b = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.conv3a, self.conv3b = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.conv4a, self.conv4b = nn.Conv2d(16, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1)
        self.conv5a, self.conv5b = nn.Conv2d(8, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.out = nn.Conv2d(4, 3, 1)
        self.norm = nn.BatchNorm2d(8)
        self.pool, self.up, self.act = nn.MaxPool2d(2), nn.Upsample(scale_factor=2), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        a = self.act(self.conv1b(self.act(self.conv1a(x))))
        b = self.act(self.conv2b(self.act(self.conv2a(self.pool(a)))))
        c = self.norm(self.act(self.conv3b(self.act(self.conv3a(self.pool(b))))))
        d = self.act(self.conv4b(self.act(self.conv4a(torch.cat([self.up(c), b], 1)))))
        e = self.act(self.conv5b(self.act(self.conv5a(torch.cat([self.up(d), a], 1)))))
        return self.out(e)


def test_flat_unet() -> None:
    found = anatomy(FlatUNet())
    assert table(found) == {
        "stem": (0, ("conv1a",)),
        "encoder 1": (0, ("conv1b",)),
        "encoder 2": (1, ("conv2a", "conv2b")),
        "bottleneck": (2, ("conv3a", "conv3b")),
        "decoder 1": (1, ("conv4a", "conv4b")),
        "decoder 2": (0, ("conv5a", "conv5b")),
        "head": (0, ("out",)),
    }
    assert found.stage_by_path["norm"] == "bottleneck"
    assert found.stage_by_path["pool"] == "encoder 2"  # where it is called first
    assert found.stage_by_path["up"] == "decoder 1"
    assert found.transition_paths == {"pool"}


def test_cascade() -> None:
    found = anatomy(UNetPair())
    assert table(found) == {
        "stem": (0, ("coarse.inc",)),
        "encoder 1": (1, ("coarse.downs.0",)),
        "encoder 2": (2, ("coarse.downs.1",)),
        "decoder 1": (1, ("coarse.ups.0",)),
        "decoder 2": (0, ("coarse.ups.1",)),
        "bridge": (0, ("coarse.outc", "fine.inc")),
        "pass 2 encoder 1": (1, ("fine.downs.0",)),
        "pass 2 encoder 2": (2, ("fine.downs.1",)),
        "pass 2 decoder 1": (1, ("fine.ups.0",)),
        "pass 2 decoder 2": (0, ("fine.ups.1",)),
        "head": (0, ("fine.outc",)),
    }
    assert [stage.name for stage in found.middle()] == [
        "encoder 1",
        "decoder 1",
        "pass 2 encoder 1",
        "pass 2 decoder 1",
    ]
    assert found.input_paths == {"coarse.inc.0"}
    assert found.output_paths == {"fine.outc"}


class BranchingDown(nn.Module):
    """Features that are pooled straight to the decoder must not hold up the end of a transition."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.down1 = nn.Sequential(ResidualBlock(4, 4, 2), ResidualBlock(4, 4))
        self.down2 = nn.Sequential(ResidualBlock(4, 4, 2), ResidualBlock(4, 4))
        self.middle = ResidualBlock(4, 4)
        self.up1 = nn.Sequential(nn.Upsample(scale_factor=2), ResidualBlock(4, 4))
        self.fuse1 = ResidualBlock(12, 4)
        self.up2 = nn.Sequential(nn.Upsample(scale_factor=2), ResidualBlock(4, 4))
        self.fuse2 = ResidualBlock(8, 4)
        self.out = nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.stem(x)
        pooled = F.max_pool2d(a, 2)
        b = self.down1(a)
        c = self.middle(self.down2(b))
        b = self.fuse1(torch.cat([self.up1(c), b, pooled], 1))
        return self.out(self.fuse2(torch.cat([self.up2(b), a], 1)))


def test_a_long_skip_does_not_postpone_the_end_of_a_transition() -> None:
    found = anatomy(BranchingDown())
    convolutions = ("conv1", "conv2", "shortcut")
    assert found.transition_paths == {f"down{i}.0.{name}" for i in (1, 2) for name in convolutions}


class WithSides(nn.Module):
    """A second input, a gate on a skip, and an auxiliary output."""

    def __init__(self) -> None:
        super().__init__()
        self.guide = nn.Conv2d(1, 4, 3, padding=1)
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.down = ResidualBlock(4, 4, 2)
        self.middle = ResidualBlock(4, 4)
        self.gate = nn.Conv2d(4, 4, 1)
        self.up = nn.Sequential(nn.Upsample(scale_factor=2), ResidualBlock(4, 4))
        self.preview = nn.Conv2d(4, 3, 1)
        self.out = nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, x: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
        a = self.stem(x) + self.guide(depth)
        b = self.middle(self.down(a))
        return self.out(self.up(b) + self.gate(a)), self.preview(b)


def test_units_off_the_main_path() -> None:
    found = infer(capture(WithSides(), (torch.rand(1, 3, 64, 96), torch.rand(1, 1, 64, 96))))
    assert {stage.name: (stage.kind, stage.units) for stage in found.stages} == {
        "stem": ("stem", ("stem",)),
        "conditioning": ("side", ("guide",)),
        "encoder 1": ("encoder", ("down",)),
        "bottleneck": ("bottleneck", ("middle",)),
        "decoder 1": ("decoder", ("up",)),
        "skip": ("skip", ("gate",)),
        "head": ("head", ("out",)),
        "aux head": ("aux head", ("preview",)),
    }
    assert found.input_paths == {"stem", "guide"}
    assert found.output_paths == {"out", "preview"}


class WorksBeforeDown(nn.Module):
    """Encoder stages that end with the change of resolution, which unshuffles pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.enc1 = nn.Sequential(ResidualBlock(4, 4), nn.Conv2d(4, 1, 3, padding=1), nn.PixelUnshuffle(2))
        self.enc2 = nn.Sequential(ResidualBlock(4, 4), nn.Conv2d(4, 1, 3, padding=1), nn.PixelUnshuffle(2))
        self.middle = ResidualBlock(4, 4)
        self.dec1 = nn.Sequential(nn.Conv2d(4, 16, 1), nn.PixelShuffle(2), ResidualBlock(4, 4))
        self.dec2 = nn.Sequential(nn.Conv2d(4, 16, 1), nn.PixelShuffle(2), ResidualBlock(4, 4))
        self.out = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.stem(x)
        b = self.enc1(a)
        c = self.middle(self.enc2(b))
        return self.out(torch.cat([self.dec2(self.dec1(c) + b), a], 1))


def test_encoders_that_work_before_they_go_down() -> None:
    found = anatomy(WorksBeforeDown())
    assert table(found) == {
        "stem": (0, ("stem",)),
        "encoder 1": (0, ("enc1",)),
        "encoder 2": (1, ("enc2",)),
        "bottleneck": (2, ("middle",)),
        "decoder 1": (1, ("dec1",)),
        "decoder 2": (0, ("dec2",)),
        "head": (0, ("out",)),
    }
    assert found.transition_paths == {"enc1.2", "enc2.2"}


def test_an_output_that_does_not_depend_on_the_input() -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)
            self.register_buffer("constant", torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            self.conv(x)
            return self.constant

    found = anatomy(Constant())
    assert not found.is_unet
    assert found.stage_of("conv") is not None
