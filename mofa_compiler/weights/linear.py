"""One convolution for two, and several for one, exactly; in the precision of the old ones."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .kernels import fill


def passes_shift(conv: nn.Conv2d | nn.ConvTranspose2d) -> bool:
    """Whether a shift before a convolution is one behind it: no zeros come in at the border."""
    if isinstance(conv, nn.ConvTranspose2d):
        return False
    return conv.padding_mode != "zeros" or not _pads(conv)


def composed(first: nn.Conv2d, second: nn.Conv2d) -> nn.Conv2d | None:
    """second(first(x)) as one convolution; None where that is none."""
    groups = math.gcd(first.groups, second.groups)
    outer, inner = _dense(second), _dense(first)
    if _is_pointwise(second):
        like, weight = first, torch.einsum("om,mikl->oikl", outer[:, :, 0, 0], inner)
    elif _is_pointwise(first) and (first.bias is None or passes_shift(second)):
        like, weight = second, torch.einsum("omkl,mi->oikl", outer, inner[:, :, 0, 0])
    else:
        return None
    new = nn.Conv2d(
        first.in_channels,
        second.out_channels,
        (like.kernel_size[0], like.kernel_size[1]),
        (like.stride[0], like.stride[1]),
        like.padding if isinstance(like.padding, str) else (like.padding[0], like.padding[1]),
        (like.dilation[0], like.dilation[1]),
        groups,
        bias=first.bias is not None or second.bias is not None,
        padding_mode=like.padding_mode,
        device=first.weight.device,
        dtype=first.weight.dtype,
    )
    if weight.is_meta:
        return new
    blocks = weight.view(groups, -1, groups, first.in_channels // groups, *weight.shape[2:])
    index = torch.arange(groups)
    kept = blocks[index, :, index]
    fill(new.weight, kept.flatten(0, 1))
    if new.bias is not None:
        offset = 0 if first.bias is None else outer.sum((2, 3)) @ first.bias.detach()
        fill(new.bias, offset + (new.bias * 0 if second.bias is None else second.bias.detach()))
    return new


def only_outputs(conv: nn.Conv2d, start: int, stop: int) -> nn.Conv2d:
    """What makes the channels from `start` to `stop` of an ungrouped or a depthwise convolution."""
    channels = stop - start
    depthwise = conv.groups > 1
    new = nn.Conv2d(
        channels if depthwise else conv.in_channels,
        channels,
        (conv.kernel_size[0], conv.kernel_size[1]),
        (conv.stride[0], conv.stride[1]),
        conv.padding if isinstance(conv.padding, str) else (conv.padding[0], conv.padding[1]),
        (conv.dilation[0], conv.dilation[1]),
        channels if depthwise else 1,
        bias=conv.bias is not None,
        padding_mode=conv.padding_mode,
    ).to(conv.weight)
    fill(new.weight, conv.weight[start:stop])
    if conv.bias is not None and new.bias is not None:
        fill(new.bias, conv.bias[start:stop])
    return new


def unshuffled(conv: nn.Conv2d, factor: int) -> Tensor:
    """The weight of the transposed convolution that a convolution and a pixel shuffle by `factor` are together."""
    height, width = conv.kernel_size
    inputs = conv.in_channels // conv.groups
    taps = conv.weight.detach().view(conv.groups, -1, factor, factor, inputs, height, width).flip(5, 6)
    ordered = taps.permute(0, 4, 1, 5, 2, 6, 3)  # groups, inputs, outputs, then rows and columns, each kernel · factor
    return ordered.reshape(conv.in_channels, -1, height * factor, width * factor)


def _dense(conv: nn.Conv2d) -> Tensor:
    """The weight without groups: (outputs, inputs, kernel)."""
    weight = conv.weight.detach()
    if conv.groups == 1:
        return weight
    dense = weight.new_zeros(conv.groups, conv.out_channels // conv.groups, conv.groups, *weight.shape[1:])
    index = torch.arange(conv.groups)
    dense[index, :, index] = weight.view(conv.groups, -1, *weight.shape[1:])
    return dense.view(conv.out_channels, conv.in_channels, *weight.shape[2:])


def _is_pointwise(conv: nn.Conv2d) -> bool:
    return conv.kernel_size == (1, 1) == conv.stride and not _pads(conv)


def _pads(conv: nn.Conv2d) -> bool:
    """Whether there is any padding; `same` has none where the kernel is 1x1."""
    if isinstance(conv.padding, str):
        return conv.padding == "same" and conv.kernel_size != (1, 1)
    return any(conv.padding)
