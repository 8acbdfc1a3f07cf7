"""Stage inference: what a person would say each part of a network is, whatever its modules are called."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from architectures import PMRID, NAFNet, UNet
from mofa_compiler.analysis.anatomy import Anatomy, Stage, infer
from mofa_compiler.frontend import capture
from mofa_compiler.graph.program import Program
from tests.analysis.anatomy.small import anatomy, table, unit_roles

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


@functools.cache
def program(name: str, height: int = 64, width: int = 96) -> Program:
    """One of them captured, for all tests that only read it."""
    return capture(ARCHITECTURES[name][0](), torch.rand(1, 3, height, width))


@functools.cache
def inferred(name: str, height: int = 64, width: int = 96) -> Anatomy:
    return infer(program(name, height, width))


@pytest.mark.parametrize("size", [(64, 96), (256, 384)], ids=str)
@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.sample(4)
def test_stages_of_the_example_architectures(name: str, size: tuple[int, int]) -> None:
    expected, found = ARCHITECTURES[name][1], inferred(name, *size)
    assert table(found) == expected
    assert list(table(found)) == list(expected)
    assert found.is_unet, found.reason


def test_stages_of_a_unet_at_an_odd_size() -> None:
    assert table(anatomy(UNet(width=2), (1, 3, 250, 190))) == unet_stages(4)


def test_roles_name_the_transitions() -> None:
    found = inferred("nafnet-2-levels")
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
    kinds = [stage.kind for stage in inferred("unet-2-levels").stages]
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
    meaningless, renamed = scrambled(capture(build(), torch.rand(1, 3, 64, 96)))
    found = table(infer(meaningless))
    assert found == {
        stage: (level, tuple(renamed[unit] for unit in units)) for stage, (level, units) in expected.items()
    }


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.sample(2)
def test_every_called_leaf_has_a_stage(name: str) -> None:
    found = inferred(name)
    nodes = program(name).graph.nodes
    called = {str(node.target) for node in nodes if node.op == "call_module"}
    assert set(found.stage_by_path) == called
    assert set(found.stage_by_path.values()) == {stage.name for stage in found.stages}
    assert set(found.levels) == {node.name for node in nodes}


@pytest.mark.parametrize(
    ("name", "inputs", "outputs"),
    [
        ("pmrid", {"conv0.conv"}, {"out1.conv"}),
        ("nafnet", {"intro"}, {"ending"}),
        ("unet", {"inc.0"}, {"outc"}),
    ],
)
def test_input_and_output_convolutions(name: str, inputs: set[str], outputs: set[str]) -> None:
    found = inferred(name)
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
    found = inferred("pmrid")
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
    assert inferred("nafnet").transition_paths == {"downs.0", "downs.1", "downs.2"}


@pytest.mark.parametrize("bilinear", [False, True])
def test_transitions_of_a_pooling_unet_hold_no_convolution(bilinear: bool) -> None:
    found = inferred("unet-bilinear" if bilinear else "unet")
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
    assert [stage.name for stage in inferred(name).middle()] == expected


@pytest.mark.parametrize(
    ("name", "kind", "levels"),
    [("pmrid", "add", [3, 2, 1, 0]), ("nafnet", "add", [2, 1, 0]), ("unet", "cat", [3, 2, 1, 0])],
)
def test_long_skips(name: str, kind: str, levels: list[int]) -> None:
    found = inferred(name)
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
    found = inferred("nafnet")
    assert stage_name(found.stage_of(path)) == stage
    assert found.in_transition(path) is transition
