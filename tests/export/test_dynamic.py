"""Files for every size that a network takes: its own padding and cropping is no reason for multiples."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mofa_compiler
from mofa_compiler.base.errors import ExportError
from mofa_compiler.export import export, formats
from mofa_compiler.export.guards import hold
from mofa_compiler.formats.dynamic_shapes import Images, Sizes
from mofa_compiler.formats.torch_export import any_size, trace
from mofa_compiler.graph.call_spec import CallSpec, InputSpec
from mofa_compiler.numerics.running import run
from tests.raising import raising

SIZES = [(61, 45), (64, 48), (60, 56), (33, 90), (99, 17)]


class Padded(nn.Module):
    """Pads to multiples of 4 and crops, each side by another arithmetic with negative numbers in it."""

    def __init__(self, mode: str = "constant"):
        super().__init__()
        self.mode = mode
        self.down, self.up = nn.Conv2d(3, 4, 4, stride=4), nn.ConvTranspose2d(4, 3, 4, stride=4)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        y = F.pad(x, (0, -(width // -4) * 4 - width, 0, -height % 4), mode=self.mode)
        return x + self.up(self.down(y))[..., :height, :width]


class Resized(nn.Module):
    """Resizes to what it adds to."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.mix = nn.MaxPool2d(2, ceil_mode=True), nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.interpolate(self.mix(self.down(x)), size=x.shape[2:], mode="nearest")


class Branching(Padded):
    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        y = x
        if height % 4 > 0 or width % 4 > 0:
            y = F.pad(x, (0, -width % 4, 0, -height % 4))
        return x + self.up(self.down(y))[..., :height, :width]


def assert_same_at(to: str, file: Path, network: nn.Module, sizes: list[tuple[int, int]]) -> None:
    runner = formats()[to].open(file)
    for height, width in sizes:
        x = torch.rand(1, 3, height, width)
        torch.testing.assert_close(runner([x])[0], run(network, CallSpec((x,))), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("network", [Padded().eval(), Resized().eval()], ids=["padded", "resized"])
@pytest.mark.parametrize("to", ["onnx", "pt2", "openvino", "executorch", "torchscript"])
@pytest.mark.sample("pt2")
def test_a_network_that_takes_every_size_is_written_for_every_size(to: str, network: nn.Module, tmp_path: Path) -> None:
    file = tmp_path / f"net{formats()[to].suffixes[0]}"
    done = export(network, to, file, dynamic=True, inputs=torch.rand(1, 3, 61, 45))
    assert done.sizes is not None and done.sizes.multiple == 1
    assert done.comparisons[0].inputs == "1x3x61x45"
    assert not any("multiples" in note for note in done.notes)
    assert_same_at(to, file, network, SIZES)


@pytest.mark.slow
def test_a_branch_on_the_size_is_seen_and_said(tmp_path: Path) -> None:
    network, example = Branching().eval(), torch.rand(1, 3, 61, 45)
    done = export(network, "pt2", tmp_path / "net.pt2", dynamic=True, inputs=example)
    assert done.sizes is not None and done.sizes.multiple == 4
    assert "multiples of 4 only, of which the example (61x45) is none" in done.notes[0]
    assert_same_at("pt2", tmp_path / "net.pt2", network, [(64, 48), (60, 88)])


@pytest.mark.parametrize(("kind", "every"), [(Padded, True), (Branching, False)])
def test_what_was_taken_for_granted_is_looked_at_everywhere(kind: type[Padded], every: bool) -> None:
    network = kind().eval()
    images = Images(CallSpec((InputSpec((1, 3, 61, 45)),)))
    example = images.call.example()
    for sizes, alike in [(Sizes(1, 16), every), (Sizes(1, 16, (122, 90)), every)]:
        with any_size():
            shapes = images.free_dimensions(example, network, sizes)
            program = trace(network, example.args, {}, shapes)
        assert hold(program, network, images, sizes) == alike
    assert hold(program, network, images, Sizes(1, 45, (47, 47)))  # all of them padded, as the example is
    assert not hold(program, network, images, Sizes(1, 61))  # the program's bounds end below


def test_a_guard_in_a_bundle_is_told_by_the_line_that_decided(tmp_path: Path) -> None:
    bundle = mofa_compiler.apply(Branching().eval(), [], torch.rand(1, 3, 61, 45)).save(tmp_path / "bundle")
    line = "test_dynamic.py:55: if height % 4 > 0 or width % 4 > 0:"
    assert {one["line"] for one in json.loads((bundle / "report.json").read_text())["guards"]} == {line}
    with pytest.raises(ExportError) as caught:
        export(bundle, "torchscript", dynamic=True)
    assert line in str(caught.value) and "model.py" not in str(caught.value)
    (bundle / "report.json").unlink()
    with raising(ExportError, "wrong-input"):
        export(bundle, "torchscript", dynamic=True)
