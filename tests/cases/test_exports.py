"""Cases of what is saved, and of what is exported."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import mofa_compiler
from mofa_compiler import Roadmap
from mofa_compiler.base.errors import ExportError
from mofa_compiler.export import Exported, export, formats
from mofa_compiler.graph.call_spec import CallSpec
from mofa_compiler.numerics.running import run
from mofa_compiler.passes import ChannelsLast, LowerPConv
from mofa_compiler.passes.lower_pconv import Form
from mofa_compiler.runtime import engine

from .files import imported


@pytest.mark.case("front-end/shared_parameter.py")
def test_a_parameter_of_a_module_and_its_child_is_saved_under_both_names(case: ModuleType, tmp_path: Path) -> None:
    network, x = case.Net().eval(), torch.rand(1, 3, 32, 32)
    result = mofa_compiler.apply(network, "mofa", x)
    loaded = mofa_compiler.load(result.save(tmp_path / "bundle"))
    assert {"filters", "wave.filters"} <= loaded.state_dict().keys()
    assert loaded.get_parameter("filters") is loaded.get_parameter("wave.filters")
    assert torch.equal(run(loaded, CallSpec((x,))), run(result.model, CallSpec((x,))))


@pytest.mark.case("reliability/03_channels_last_weights_cannot_be_saved.py")
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_a_network_in_channels_last_is_saved(case: ModuleType, layout: torch.memory_format, tmp_path: Path) -> None:
    call = CallSpec((torch.rand(1, 3, 32, 32),))
    result = mofa_compiler.apply(case.Net().eval().to(memory_format=layout), "mofa", call.args)
    loaded = mofa_compiler.load(result.save(tmp_path / "bundle"))
    torch.testing.assert_close(run(loaded, call), run(result.model, call))


def exported(case: ModuleType, to: str, folder: Path) -> Exported:
    """The case's network, rewritten by preset `mofa`, as a file for every size."""
    bundle = mofa_compiler.apply(case.Net().eval(), "mofa", case.example()).save(folder / "bundle")
    return export(bundle, to, dynamic=True)


def assert_same_at(sizes: list[tuple[int, int]], done: Exported, bundle: Path) -> None:
    runner, network = formats()[done.format].open(done.files[0]), mofa_compiler.load(bundle)
    for height, width in sizes:
        x = torch.rand(1, 3, height, width)
        torch.testing.assert_close(runner([x])[0], run(network, CallSpec((x,))), atol=1e-5, rtol=1e-4)


@pytest.mark.case("peers/05_any_photo.py", "reliability/08_dynamic_file_refuses_its_own_example.py")
@pytest.mark.parametrize("to", ["onnx", "pt2", "openvino", "executorch", "torchscript"])
@pytest.mark.slow
def test_a_network_that_pads_itself_takes_every_size_in_every_format(case: ModuleType, to: str, tmp_path: Path) -> None:
    done = exported(case, to, tmp_path)
    assert done.sizes is not None and done.sizes.multiple == 1 and done.comparisons[0].inputs == "1x3x61x45"
    larger = [] if done.sizes.high else [(127, 129), (250, 250)]
    assert_same_at([(61, 45), (64, 48), (120, 77), *larger], done, tmp_path / "bundle")


@pytest.mark.case("peers/05_any_photo.py")
def test_reflection_wider_than_the_image_is_the_original_s_error(case: ModuleType) -> None:
    network = case.Net().eval()
    model = mofa_compiler.apply(network, "mofa", case.example()).model
    for height, width in [(61, 45), (64, 48), (127, 129)]:
        assert run(model, CallSpec((torch.rand(1, 3, height, width),))).shape == (1, 3, height, width)
    errors = []
    for one in (network, model):
        with pytest.raises(RuntimeError) as caught:
            run(one, CallSpec((torch.rand(1, 3, 1, 1),)))
        errors.append(str(caught.value))
    assert errors[0] == errors[1]


@pytest.mark.case("peers/06_sized_by_the_skip.py")
@pytest.mark.parametrize("to", ["onnx", "pt2", "executorch"])
@pytest.mark.sample("onnx")
def test_a_decoder_sized_by_the_skip_takes_every_size(case: ModuleType, to: str, tmp_path: Path) -> None:
    done = exported(case, to, tmp_path)
    assert done.sizes is not None and done.sizes.multiple == 1
    larger = [] if done.sizes.high else [(127, 129)]
    assert_same_at([(50, 66), (48, 64), (61, 45), *larger], done, tmp_path / "bundle")


class PadsIfItMust(nn.Module):
    """pytorch#136216: `if pad > 0` in place of padding by nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(3, 8, 4, stride=4), nn.ConvTranspose2d(8, 3, 4, stride=4)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        height, width = image.shape[-2:]
        pad_h, pad_w = -height % 4, -width % 4
        x = image
        if pad_h > 0 or pad_w > 0:
            x = F.pad(x, (0, pad_w, 0, pad_h), mode="reflect")
        return image + self.up(self.down(x))[..., :height, :width]


@pytest.mark.case("reliability/08_dynamic_file_refuses_its_own_example.py")
def test_a_branch_on_the_padding_is_named_by_the_user_s_line(tmp_path: Path) -> None:
    bundle = mofa_compiler.apply(PadsIfItMust().eval(), "mofa", torch.rand(1, 3, 61, 45)).save(tmp_path / "bundle")
    with pytest.raises(ExportError) as caught:
        export(bundle, "pt2", dynamic=True)
    assert "test_exports.py" in str(caught.value) and "if pad_h > 0 or pad_w > 0" in str(caught.value)
    assert "model.py" not in str(caught.value)
    bundle = mofa_compiler.apply(PadsIfItMust().eval(), "mofa", torch.rand(1, 3, 64, 64)).save(tmp_path / "square")
    done = export(bundle, "pt2", dynamic=True)
    assert done.sizes is not None and done.sizes.multiple == 4


@pytest.mark.case("peers/06_sized_by_the_skip.py")
@pytest.mark.slow
def test_openvino_takes_a_thumbnail_of_one_pixel_as_torch_does(case: ModuleType, tmp_path: Path) -> None:
    assert exported(case, "openvino", tmp_path).relative_error < 1e-4


@pytest.mark.case("reliability/14_refusals_without_a_name.py")
@pytest.mark.slow
def test_a_normalization_behind_a_grouped_transposed_convolution_is_merged_for_executorch(tmp_path: Path) -> None:
    with imported("peers/08_norms_that_do_not_merge.py") as case:
        bundle = mofa_compiler.apply(case.Net().eval(), "mofa", case.example()).save(tmp_path / "bundle")
        done = export(bundle, "executorch")
    assert done.notes[0].startswith("normalizations were merged into convolutions first")


@pytest.mark.case("peers/02_pool_that_learns_its_size.py", "reliability/14_refusals_without_a_name.py")
@pytest.mark.slow
def test_a_pool_that_learns_its_size_is_left_alone_and_exported(case: ModuleType, tmp_path: Path) -> None:
    network = case.Net().eval()
    result = mofa_compiler.apply(network, "mofa", case.example())
    assert network.pool.window is None
    bundle, call = result.save(tmp_path / "bundle"), CallSpec((case.example(),))
    exact = mofa_compiler.apply(network, [], case.example()).model
    torch.testing.assert_close(run(exact, call), run(case_of(network, case), call))
    done = export(bundle, "pt2", dynamic=True)  # what was proven of its sizes could be written and not read again
    assert done.sizes is not None and done.relative_error < 1e-5


def case_of(network: nn.Module, case: ModuleType) -> nn.Module:
    """A fresh network with the same weights, whose pool has seen no image."""
    fresh = case.Net().eval()
    fresh.load_state_dict(network.state_dict())
    return fresh


@pytest.mark.case("peers/07_gray_channels_last.py")
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("to", ["onnx", "pt2", "openvino", "torchscript", "executorch"])
@pytest.mark.sample("pt2")
def test_a_gray_crop_in_channels_last_is_as_good_as_a_contiguous_one(
    case: ModuleType, to: str, batch: int, tmp_path: Path
) -> None:
    x = case.example().repeat(batch, 1, 1, 1).to(memory_format=torch.channels_last) if batch > 1 else case.example()
    roadmap = Roadmap([*Roadmap.load("mofa").passes, ChannelsLast()], name="gray")
    result = mofa_compiler.apply(case.Net().eval(), roadmap, x)
    done = export(result.save(tmp_path / "bundle"), to, inputs=[x])
    expected = run(result.model, CallSpec((torch.empty(x.shape).copy_(x),)))
    got = formats()[to].open(done.files[0])([x])[0]
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.case("peers/07_gray_channels_last.py")
@pytest.mark.parametrize("name", ["eager", "channels-last", "onnxruntime", "xnnpack"])
@pytest.mark.sample("eager")
def test_every_engine_runs_a_gray_crop_in_channels_last(case: ModuleType, name: str) -> None:
    network, x = case.Net().eval(), case.example()
    got = engine(name).compile(network, [x]).outputs([x])[0]
    torch.testing.assert_close(got, run(network, CallSpec((x,))), atol=1e-5, rtol=1e-4)


@pytest.mark.case("peers/03_int8_after_the_rewrite.py")
@pytest.mark.parametrize("form", get_args(Form))
@pytest.mark.sample(1)
def test_every_form_of_a_partial_convolution_is_saved_and_exported_alike(
    case: ModuleType, form: Form, tmp_path: Path
) -> None:
    roadmap = Roadmap([*Roadmap.load("mofa").passes, LowerPConv(form=form)], name="form")
    result = mofa_compiler.apply(case.Net().eval(), roadmap, case.example())
    bundle, call = result.save(tmp_path / "bundle"), CallSpec((case.example(),))
    assert torch.equal(run(mofa_compiler.load(bundle), call), run(result.model, call))
    assert export(bundle, "onnx").relative_error < 1e-4


@pytest.mark.case("peers/10_twelve_megapixels.py")
@pytest.mark.slow
def test_a_dynamic_file_says_for_how_much_it_plans_memory(case: ModuleType, tmp_path: Path) -> None:
    done = exported(case, "executorch", tmp_path)
    assert done.sizes is not None and done.sizes.high == (128, 128)
    assert any(note.startswith("memory is planned for images of up to 128x128") for note in done.notes)
    assert_same_at([(64, 64), (32, 96), (128, 128)], done, tmp_path / "bundle")
