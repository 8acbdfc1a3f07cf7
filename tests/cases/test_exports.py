"""Cases of what is saved, and of what is exported."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import mofa_compiler
from mofa_compiler.errors import ExportError
from mofa_compiler.export import Exported, export, formats
from mofa_compiler.inputs import CallSpec
from mofa_compiler.verification.running import run


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
