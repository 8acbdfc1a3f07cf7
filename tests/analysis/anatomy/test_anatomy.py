"""Stage inference: what a person would say each part of a network is, whatever its modules are called."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from architectures import PMRID, NAFNet, UNet
from mofa_compiler.analysis.anatomy import Anatomy, Stage, infer
from mofa_compiler.base.errors import AnatomyError
from mofa_compiler.frontend import capture
from mofa_compiler.graph.program import Program
from tests.analysis.anatomy.small import UNetPair
from tests.raising import raising


def anatomy(model: nn.Module, height: int = 64, width: int = 96, channels: int = 3) -> Anatomy:
    return infer(capture(model, torch.rand(1, channels, height, width)))


def table(found: Anatomy) -> dict[str, tuple[int | None, tuple[str, ...]]]:
    return {stage.name: (stage.level, stage.units) for stage in found.stages}


def unit_roles(**roles: str) -> dict[str, str]:
    """Roles by unit path, written with two underscores for a dot."""
    return {path.replace("__", "."): role for path, role in roles.items()}


PMRID_STAGES = {
    "stem": (0, ("conv0",)),
    "encoder 1": (1, ("enc1",)),
    "encoder 2": (2, ("enc2",)),
    "encoder 3": (3, ("enc3",)),
    "encoder 4": (4, ("enc4",)),
    "bottleneck": (4, ("encdec",)),
    "decoder 1": (4, ("dec1",)),
    "decoder 2": (3, ("dec2",)),
    "decoder 3": (2, ("dec3",)),
    "decoder 4": (1, ("dec4",)),
    "head": (0, ("out0", "out1")),
}


def nafnet_stages(depth: int) -> dict[str, tuple[int, tuple[str, ...]]]:
    stages: dict[str, tuple[int, tuple[str, ...]]] = {"stem": (0, ("intro",))}
    for i in range(depth):
        stages[f"encoder {i + 1}"] = (i, (*([f"downs.{i - 1}"] if i else []), f"encoders.{i}"))
    stages["bottleneck"] = (depth, (f"downs.{depth - 1}", "middle_blks"))
    for i in range(depth):
        stages[f"decoder {i + 1}"] = (depth - 1 - i, (f"ups.{i}", f"decoders.{i}"))
    return stages | {"head": (0, ("ending",))}


def unet_stages(depth: int) -> dict[str, tuple[int, tuple[str, ...]]]:
    stages: dict[str, tuple[int, tuple[str, ...]]] = {"stem": (0, ("inc",))}
    stages |= {f"encoder {i + 1}": (i + 1, (f"downs.{i}",)) for i in range(depth)}
    stages |= {f"decoder {i + 1}": (depth - 1 - i, (f"ups.{i}",)) for i in range(depth)}
    return stages | {"head": (0, ("outc",))}


ARCHITECTURES = {
    "pmrid": (PMRID, PMRID_STAGES),
    "nafnet": (lambda: NAFNet(width=4), nafnet_stages(3)),
    "nafnet-2-levels": (
        lambda: NAFNet(width=4, enc_blk_nums=[1, 1], dec_blk_nums=[1, 1]),
        nafnet_stages(2),
    ),
    "nafnet-5-levels": (lambda: NAFNet(width=2, enc_blk_nums=[1] * 5, dec_blk_nums=[1] * 5), nafnet_stages(5)),
    "nafnet-uneven": (
        lambda: NAFNet(width=4, middle_blk_num=2, enc_blk_nums=[2, 1, 3], dec_blk_nums=[3, 1, 2]),
        nafnet_stages(3),
    ),
    "unet": (lambda: UNet(width=2), unet_stages(4)),
    "unet-bilinear": (lambda: UNet(width=2, bilinear=True), unet_stages(4)),
    "unet-2-levels": (lambda: UNet(width=2, depth=2), unet_stages(2)),
    "unet-5-levels": (lambda: UNet(width=2, depth=5), unet_stages(5)),
}


@pytest.mark.parametrize("size", [(256, 256), (256, 384)], ids=str)
@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.sample(5)
def test_stages_of_the_example_architectures(name: str, size: tuple[int, int]) -> None:
    build, expected = ARCHITECTURES[name]
    found = anatomy(build(), *size)
    assert table(found) == expected
    assert list(table(found)) == list(expected)
    assert found.is_unet, found.reason


def test_stages_of_a_unet_at_an_odd_size() -> None:
    assert table(anatomy(UNet(width=2), 250, 190)) == unet_stages(4)


def test_roles_name_the_transitions() -> None:
    found = anatomy(NAFNet(width=4, enc_blk_nums=[1, 1], dec_blk_nums=[1, 1]))
    assert found.roles == unit_roles(
        intro="stem",
        encoders__0="encoder 1",
        downs__0="down transition",
        encoders__1="encoder 2",
        downs__1="down transition",
        middle_blks="bottleneck",
        ups__0="up transition",
        decoders__0="decoder 1",
        ups__1="up transition",
        decoders__1="decoder 2",
        ending="head",
    )


def test_kinds() -> None:
    kinds = [stage.kind for stage in anatomy(UNet(width=2, depth=2)).stages]
    assert kinds == ["stem", "encoder", "encoder", "decoder", "decoder", "head"]


def scrambled(program: Program) -> tuple[Program, dict[str, str]]:
    """The program with every attribute name replaced by a meaningless one, and the new path of each old one."""

    def rename(path: str) -> str:
        return ".".join("m" + hashlib.md5(part.encode()).hexdigest()[:6] for part in path.split(".")) if path else ""

    for node in program.graph.nodes:
        stack = node.meta.get("nn_module_stack") or {}
        node.meta["nn_module_stack"] = {rename(key): (rename(path), kind) for key, (path, kind) in stack.items()}
        if node.op in ("call_module", "get_attr"):
            node.target = rename(str(node.target))
    renamed = replace(
        program,
        modules={rename(path): module for path, module in program.modules.items()},
        containers={rename(path): kind for path, kind in program.containers.items()},
        tensors={rename(path): tensor for path, tensor in program.tensors.items()},
    )
    return renamed, {path: rename(path) for path in (*program.modules, *program.containers)}


@pytest.mark.parametrize("name", ["pmrid", "nafnet", "unet-bilinear"])
def test_names_play_no_part(name: str) -> None:
    build, expected = ARCHITECTURES[name]
    program, renamed = scrambled(capture(build(), torch.rand(1, 3, 128, 128)))
    found = table(infer(program))
    assert found == {
        stage: (level, tuple(renamed[unit] for unit in units)) for stage, (level, units) in expected.items()
    }


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.sample(2)
def test_every_called_leaf_has_a_stage(name: str) -> None:
    program = capture(ARCHITECTURES[name][0](), torch.rand(1, 3, 64, 64))
    found = infer(program)
    called = {str(node.target) for node in program.graph.nodes if node.op == "call_module"}
    assert set(found.stage_by_path) == called
    assert set(found.stage_by_path.values()) == {stage.name for stage in found.stages}
    assert set(found.levels) == {node.name for node in program.graph.nodes}


@pytest.mark.parametrize(
    ("name", "inputs", "outputs"),
    [
        ("pmrid", {"conv0.conv"}, {"out1.conv"}),
        ("nafnet", {"intro"}, {"ending"}),
        ("unet", {"inc.0"}, {"outc"}),
    ],
)
def test_input_and_output_convolutions(name: str, inputs: set[str], outputs: set[str]) -> None:
    found = anatomy(ARCHITECTURES[name][0]())
    assert found.input_paths == inputs
    assert found.output_paths == outputs


def test_a_gate_on_pooled_vectors_is_neither_input_nor_output() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 3, 1))
            self.first = nn.Conv2d(3, 8, 3, padding=1)
            self.last = nn.Conv2d(8, 3, 3, padding=1)
            self.after = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 3, 1))

        def forward(self, x: Tensor) -> Tensor:
            x = self.last(self.first(x * self.before(x)))
            return x * self.after(x)

    found = anatomy(Gated())
    assert found.input_paths == {"first"}
    assert found.output_paths == {"last"}


def test_transitions_of_pmrid_are_the_strided_blocks() -> None:
    found = anatomy(PMRID())
    layers = (
        "conv1.depthwise",
        "conv1.pointwise",
        "conv2.depthwise",
        "conv2.pointwise",
        "proj.depthwise",
        "proj.pointwise",
    )
    expected = {f"enc{stage}.0.{layer}" for stage in (1, 2, 3, 4) for layer in layers}
    assert {path for path in found.transition_paths if "relu" not in path} == expected


def test_transitions_of_nafnet_are_the_strided_convolutions() -> None:
    assert anatomy(NAFNet(width=4)).transition_paths == {"downs.0", "downs.1", "downs.2"}


@pytest.mark.parametrize("bilinear", [False, True])
def test_transitions_of_a_pooling_unet_hold_no_convolution(bilinear: bool) -> None:
    found = anatomy(UNet(width=2, bilinear=bilinear))
    assert found.transition_paths == {f"downs.{i}.0" for i in range(4)}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pmrid", ["encoder 3", "decoder 2"]),
        ("nafnet", ["encoder 3", "decoder 1"]),
        ("nafnet-2-levels", ["encoder 2", "decoder 1"]),
        ("unet", ["encoder 3", "decoder 1"]),
        ("unet-bilinear", ["encoder 3", "decoder 1"]),
    ],
)
def test_middle_stages_run_one_level_above_the_bottom(name: str, expected: list[str]) -> None:
    assert [stage.name for stage in anatomy(ARCHITECTURES[name][0]()).middle()] == expected


@pytest.mark.parametrize(
    ("name", "kind", "levels"),
    [("pmrid", "add", [3, 2, 1, 0]), ("nafnet", "add", [2, 1, 0]), ("unet", "cat", [3, 2, 1, 0])],
)
def test_long_skips(name: str, kind: str, levels: list[int]) -> None:
    found = anatomy(ARCHITECTURES[name][0]())
    assert [(skip.kind, skip.level) for skip in found.skips] == [(kind, level) for level in levels]


def stage_name(stage: Stage | None) -> str | None:
    return None if stage is None else stage.name


@pytest.mark.parametrize(
    ("path", "stage", "transition"),
    [
        ("downs.0", "encoder 2", True),
        ("downs.0.pconv", "encoder 2", True),
        ("ups.0.0.pconv", "decoder 1", False),
        ("ups.0.1", "decoder 1", False),
        ("encoders.1", "encoder 2", False),
        ("encoders.1.0.conv2.conv", "encoder 2", False),
        ("middle_blks.0.sca.1", "bottleneck", False),
        ("elsewhere", None, False),
        ("downs", None, False),
    ],
)
@pytest.mark.sample(2)
def test_lookup_by_longest_known_prefix(path: str, stage: str | None, transition: bool) -> None:
    found = anatomy(NAFNet(width=4))
    assert stage_name(found.stage_of(path)) == stage
    assert found.in_transition(path) is transition


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
    assert stage_name(found.stage_of("1")) == "body"


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
