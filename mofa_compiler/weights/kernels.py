"""Making and filling convolutions."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..nn.partial_conv import PaddingMode, PartialConv2d

Kind = TypeVar("Kind", bound=PartialConv2d)


def fill(parameter: Tensor, values: Tensor) -> None:
    """Copy values into a parameter, in its dtype and on its device."""
    with torch.no_grad():
        parameter.copy_(values.to(parameter))


def dirac(channels: int, kernel_size: tuple[int, ...], depthwise: bool) -> Tensor:
    """The kernel of a convolution that passes every channel through: (C, 1 or C, k, k), float64."""
    kernel = torch.zeros(channels, 1 if depthwise else channels, *kernel_size, dtype=torch.float64)
    index = torch.arange(channels)
    kernel[index, 0 if depthwise else index, (kernel_size[0] - 1) // 2, (kernel_size[1] - 1) // 2] = 1
    return kernel


def diagonal(kernels: Tensor) -> Tensor:
    """Depthwise kernels (C, 1, k, k) as the dense kernel (C, C, k, k) that does the same."""
    channels = kernels.shape[0]
    dense = kernels.new_zeros(channels, channels, *kernels.shape[2:])
    index = torch.arange(channels)
    dense[index, index] = kernels[:, 0]
    return dense


def is_diagonal(kernel: Tensor) -> bool:
    """Whether a dense kernel (C, C, k, k) mixes no channels."""
    if kernel.is_meta:
        return False
    index = torch.arange(kernel.shape[0])
    return int(kernel.count_nonzero()) == int(kernel[index, index].count_nonzero())


def border(old: nn.Conv2d | nn.ConvTranspose2d) -> PaddingMode:
    """The padding mode for a convolution that takes the place of `old` at a lower resolution.

    Reflected pixels lie half as far away there, and padding may not be as wide as a small input: the edge comes closer.
    """
    return "replicate" if old.padding_mode == "reflect" else old.padding_mode


def wraps_around(conv: nn.Conv2d, size: tuple[int, ...]) -> bool:
    """Whether an image of a size (H, W) is wide enough for what the circular padding of a kernel takes from it."""
    return conv.padding_mode != "circular" or min(size) >= max(conv.kernel_size) // 2


def depthwise_like(kernels: Tensor, old: nn.Conv2d | nn.ConvTranspose2d) -> nn.Conv2d:
    """A stride-1 depthwise convolution with these kernels (C, 1, k, k) and the bias of `old`, at a lower resolution."""
    channels, _, height, width = kernels.shape
    new = nn.Conv2d(
        channels,
        channels,
        (height, width),
        padding="same",
        groups=channels,
        bias=old.bias is not None,
        padding_mode=border(old),
        device=old.weight.device,
        dtype=old.weight.dtype,
    )
    fill(new.weight, kernels)
    if new.bias is not None and old.bias is not None:
        fill(new.bias, old.bias.detach())
    return new


def like(old: PartialConv2d, kind: type[Kind], convolved: int | None = None) -> Kind:
    """A partial convolution of a kind, over as many channels, that is otherwise made as `old`; weights are fresh."""
    conv = old.conv
    return kind(
        old.channels,
        convolved or old.convolved,
        (conv.kernel_size[0], conv.kernel_size[1]),
        dilation=(conv.dilation[0], conv.dilation[1]),
        padding_mode=conv.padding_mode,
        bias=conv.bias is not None,
        in_place=old.in_place,
        device=conv.weight.device,
        dtype=conv.weight.dtype,
    )


def without_bias(conv: nn.Module) -> nn.Conv2d:
    """A copy of a convolution with its bias dropped."""
    new = copy.deepcopy(conv)
    assert isinstance(new, nn.Conv2d)
    new.bias = None
    return new


Module = TypeVar("Module", bound=nn.Module)


def with_room(module: Module, *, shifted: bool) -> Module:
    """A copy of a module, with a new bias (whose values mean nothing) where it is a convolution that needs one."""
    new = copy.deepcopy(module)
    if shifted and isinstance(new, (nn.Conv2d, nn.ConvTranspose2d)) and new.bias is None:
        new.bias = nn.Parameter(new.weight.new_empty(new.out_channels), requires_grad=new.weight.requires_grad)
    return new


def add_bias(conv: nn.Conv2d | nn.ConvTranspose2d, shift: Tensor) -> None:
    """Add to a convolution's bias, which is made where there is none and something to add."""
    if conv.bias is not None:
        fill(conv.bias, conv.bias.detach().double() + shift)
    elif bool(shift.any()):
        conv.bias = nn.Parameter(shift.to(conv.weight), requires_grad=conv.weight.requires_grad)
