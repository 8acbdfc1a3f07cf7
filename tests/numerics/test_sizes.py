from __future__ import annotations

import pytest
import torch

from architectures import UNet
from mofa_compiler.analysis.anatomy import infer
from mofa_compiler.frontend import capture
from mofa_compiler.graph.call_spec import CallSpec
from mofa_compiler.numerics.sizes import other_sizes, total_stride


def sizes(*shapes: tuple[int, ...], stride: int) -> list[list[tuple[int, ...]]]:
    call = CallSpec(tuple(torch.rand(shape) for shape in shapes))
    return [[tuple(tensor.shape) for tensor in other.args] for other in other_sizes(call, stride)]


@pytest.mark.parametrize(
    ("shape", "stride", "first"),
    [
        ((1, 3, 256, 256), 16, (1, 3, 128, 192)),
        ((2, 4, 32, 48), 8, (2, 4, 16, 32)),
        ((1, 3, 16, 16), 16, (1, 3, 8, 12)),
        ((3, 64, 64), 4, (3, 32, 48)),
    ],
)
def test_the_first_is_smaller_and_of_another_aspect(shape: tuple[int, ...], stride: int, first: tuple[int, ...]):
    found = sizes(shape, stride=stride)
    assert found[0] == [first]
    assert [shape] not in found
    assert [(*shape[:-2], shape[-2] + stride, shape[-1] + 2 * stride)] in found


def test_inputs_keep_their_relation():
    found = sizes((1, 3, 64, 64), (1, 8, 16, 16), (1, 7), (1, 1, 5, 5), stride=16)
    assert found[0] == [(1, 3, 32, 48), (1, 8, 8, 12), (1, 7), (1, 1, 5, 5)]


def test_no_image_no_size():
    assert sizes((1, 7), stride=1) == []


def test_images_are_cropped_or_repeat_themselves():
    image = torch.arange(16.0).view(1, 1, 4, 4)
    others = [call.args[0] for call in other_sizes(CallSpec((image,)), 4)]
    assert torch.equal(others[0], image[..., :2, :3])
    larger = next(other for other in others if other.shape[-2:] == (8, 12))
    assert torch.equal(larger, image.repeat(1, 1, 2, 3))


def test_total_stride():
    for depth in (1, 3):
        model = UNet(width=4, depth=depth)
        assert total_stride(infer(capture(model, torch.rand(1, 3, 32, 32)))) == 2**depth
