"""Weights lie in memory in many ways, and a bundle stores them in one: rounding is no reason not to save."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import mofa_compiler
from mofa_compiler.base.errors import BundleError
from mofa_compiler.bundle import saved_bits
from mofa_compiler.graph.call_spec import CallSpec, InputSpec
from mofa_compiler.numerics.running import run
from tests.raising import raising


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)
        self.depth, self.mix = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 8, 1)
        self.down, self.up = nn.Conv2d(8, 16, 2, stride=2), nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.register_buffer("scale", torch.rand(1, 8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.mix(self.depth(self.stem(x))) * self.scale
        return x + self.head(y + self.up(self.down(y)))


def transposed(weight: Tensor) -> Tensor:
    return weight.transpose(0, 1).contiguous().transpose(0, 1) if weight.dim() == 4 else weight


def slices(weight: Tensor) -> Tensor:
    whole = weight.new_zeros([2 * size for size in weight.shape])
    part = whole[tuple(slice(0, 2 * size, 2) for size in weight.shape)]
    return part.copy_(weight)


def expanded(weight: Tensor) -> Tensor:
    return weight[:1].clone().expand_as(weight)


def odd_address(weight: Tensor) -> Tensor:
    whole = weight.new_zeros(weight.numel() + 1)
    return whole[1:].view(weight.shape).copy_(weight)


def channels_last(weight: Tensor) -> Tensor:
    return weight.contiguous(memory_format=torch.channels_last) if weight.dim() == 4 else weight


def laid_out(model: nn.Module, layout: Callable[[Tensor], Tensor]) -> nn.Module:
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = layout(tensor.data)
    return model


LAYOUTS = (channels_last, transposed, slices, expanded, odd_address)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("roadmap", ["mofa", []], ids=["mofa", "none"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.sample(3)
def test_every_layout_is_saved(
    layout: Callable[[Tensor], Tensor], roadmap: str | list[object], dtype: torch.dtype, tmp_path: Path
) -> None:
    network, call = laid_out(Net().eval(), layout).to(dtype), CallSpec((torch.rand(1, 3, 32, 32).to(dtype),))
    result = mofa_compiler.apply(network, roadmap, call.args)
    laid_out(result.model, layout)  # also what a user makes of it since
    before = {name: tensor.stride() for name, tensor in result.model.state_dict().items()}
    loaded = mofa_compiler.load(result.save(tmp_path / "bundle"))
    assert {name: tensor.stride() for name, tensor in result.model.state_dict().items()} == before
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, result.model.state_dict()[name]) and tensor.is_contiguous()
    off = (run(loaded, call) - run(result.model, call)).abs().max()
    assert off <= 100 * torch.finfo(dtype).eps


@pytest.mark.parametrize("kind", [nn.Conv3d, nn.ConvTranspose3d])
def test_three_dimensions_in_channels_last(kind: type[nn.Module], tmp_path: Path) -> None:
    volume = [nn.Unflatten(1, (1, 3)), kind(1, 8, 3, padding=1), nn.ReLU(), kind(8, 1, 3, padding=1), nn.Flatten(1, 2)]
    network = nn.Sequential(*volume).eval().to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    call = CallSpec((torch.rand(1, 3, 16, 16),))
    result = mofa_compiler.apply(network, [], call.args)
    loaded = mofa_compiler.load(result.save(tmp_path / "bundle"))
    torch.testing.assert_close(run(loaded, call), run(result.model, call))


class Strided(nn.Module):
    """Reads how its weights lie in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(3, 8, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.conv2d(x, self.weight.as_strided((8, 3, 3, 3), (27, 9, 3, 1)), padding=1)


def test_code_that_reads_the_layout_is_not_saved_otherwise(tmp_path: Path) -> None:
    network, x = Strided().eval(), torch.rand(1, 3, 16, 16)
    mofa_compiler.apply(network, [], x).save(tmp_path / "contiguous")
    other = mofa_compiler.apply(network.to(memory_format=torch.channels_last), [], x)
    with raising(BundleError, "computes-else", "weight"):
        other.save(tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir()] == ["contiguous"]


class Noisy(nn.Module):
    """Sums in another order at every run, as some kernels of GPUs do."""

    def __init__(self, scale: float):
        super().__init__()
        self.scale, self.runs = scale, 0

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        return x * (1 + self.scale * self.runs)


@pytest.mark.parametrize(("scale", "saved"), [(1e-6, True), (1e-2, False)])
def test_what_differs_at_every_run_is_compared_up_to_rounding(scale: float, saved: bool) -> None:
    call = CallSpec((InputSpec((1, 3, 8, 8), torch.float32),))
    if saved:
        saved_bits.compare(Noisy(scale), Noisy(scale / 2), call)
    else:
        with raising(BundleError, "computes-else"):
            saved_bits.compare(Noisy(scale), Noisy(scale / 2), call)


def test_a_flipped_decision_in_another_layout_is_no_difference() -> None:
    torch.manual_seed(0)

    class Labels(Net):
        def forward(self, x: Tensor) -> Tensor:
            return (super().forward(x) * 1e7).round().long()

    network, call = Labels().eval(), CallSpec((InputSpec((1, 3, 32, 32), torch.float32),))
    other = laid_out(copy.deepcopy(network), channels_last)
    assert not torch.equal(run(network, call.example()), run(other, call.example()))
    saved_bits.compare(other, network, call)
