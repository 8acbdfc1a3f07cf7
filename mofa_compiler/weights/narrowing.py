"""Partial convolutions that convolve fewer of their channels than before."""

from __future__ import annotations

import torch
from torch import nn

from ..nn.partial_conv import PConv2d
from .factors import square_roots
from .folding import Affine
from .kernels import add_bias, fill, with_room
from .prior import correlation_of, gains

_ALIKE = 1e-3
"""Of the largest singular value: below it, convolved channels are too alike for a mix to tell them apart"""


def narrow(old: PConv2d, new: PConv2d) -> Affine:
    """Fill a partial convolution over fewer channels with the kernels among those that stay.

    Returns what its output lacks: of every channel that is passed through now, the scalar that best replaces its own
    kernel, and its bias.
    """
    c, was = new.convolved, old.convolved
    leaving = slice(c, was)
    if old.conv.weight.is_meta:
        shift = torch.zeros(old.channels)
        shift[leaving] = float(old.conv.bias is not None)
        return Affine(old.conv.weight.new_empty(old.channels), shift)
    kernel = old.conv.weight.detach()
    fill(new.conv.weight, kernel[:c, :c])
    index = torch.arange(c, was)
    own = gains(kernel[index, index], correlation_of(old.conv).to(kernel.device))
    scale = own.new_ones(old.channels)
    scale[leaving] = own
    shift = torch.zeros_like(scale)
    if old.conv.bias is not None and new.conv.bias is not None:
        bias = old.conv.bias.detach().double()
        fill(new.conv.bias, bias[:c])
        shift[leaving] = bias[c:]
    return Affine(scale, shift)


def mixed_behind(old: PConv2d, new: PConv2d, pointwise: nn.Conv2d) -> nn.Conv2d:
    """The pointwise convolution that best makes of `new`, filled by `narrow`, what `pointwise` makes of `old`.

    It takes up what `old` mixed between channels, which `narrow` leaves out.
    """
    if old.conv.weight.is_meta:
        return with_room(pointwise, shifted=old.conv.bias is not None)
    c, was = new.convolved, old.convolved
    kernel = old.conv.weight.detach().double()
    mix = pointwise.weight.detach().double().flatten(1)
    correlation = correlation_of(old.conv).to(kernel.device)
    half, _ = square_roots(correlation)
    target = torch.einsum("om,mikl->oikl", mix[:, :was], kernel)
    wanted, seen = ((taps.flatten(2) @ half).flatten(1) for taps in (target[:, :c], kernel[:c, :c]))
    found = mix.clone()
    found[:, :c] = wanted @ torch.linalg.pinv(seen, rtol=_ALIKE)
    found[:, c:was] = gains(target[:, c:], correlation)
    adjusted = with_room(pointwise, shifted=False)
    fill(adjusted.weight, found[:, :, None, None])
    if old.conv.bias is not None:
        bias = old.conv.bias.detach().double()
        add_bias(adjusted, mix[:, :was] @ bias - found[:, :c] @ bias[:c])
    return adjusted
