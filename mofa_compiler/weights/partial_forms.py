"""The same function in another form: weights of lowered partial convolutions, exact up to rounding."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ..nn.partial_conv import PartialConv2d
from .kernels import diagonal, dirac, fill


def over_all_channels(partial: PartialConv2d) -> nn.Conv2d:
    """A depthwise partial convolution as one over all channels, whose kernels for the untouched ones are centred 1s."""
    old = partial.conv
    new = _conv_like(old, partial.channels, partial.channels, groups=partial.channels)
    if old.weight.is_meta:
        return new
    weight = dirac(partial.channels, old.kernel_size, depthwise=True)
    weight[: partial.convolved] = old.weight.detach().double()
    fill(new.weight, weight)
    if new.bias is not None and old.bias is not None:
        bias = torch.zeros(partial.channels, dtype=torch.float64)
        bias[: partial.convolved] = old.bias.detach().double()
        fill(new.bias, bias)
    return new


def merged(partial: PartialConv2d, pointwise: nn.Conv2d, norm: nn.Module | None = None) -> nn.Conv2d:
    """A partial convolution, a batch normalization (as in evaluation) and a pointwise convolution as one dense one.

    Its weights are in float64, so that it can be checked before they are rounded.
    """
    old, c = partial.conv, partial.convolved
    has_bias = pointwise.bias is not None or old.bias is not None or norm is not None
    new = _conv_like(old, partial.channels, pointwise.out_channels, bias=has_bias).double()
    if old.weight.is_meta:
        return new
    mix = pointwise.weight.detach().double().flatten(1)
    bias = mix.new_zeros(len(mix)) if pointwise.bias is None else pointwise.bias.detach().double()
    if norm is not None:
        assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None
        scale = (norm.running_var.double() + norm.eps).rsqrt()
        if norm.affine:
            scale = scale * norm.weight.detach().double()
            bias = bias + mix @ norm.bias.detach().double()
        bias = bias - mix @ (norm.running_mean.double() * scale)
        mix = mix * scale
    kernel = dirac(partial.channels, old.kernel_size, depthwise=False).to(mix.device)
    own = old.weight.detach().double()
    kernel[:c, :c] = diagonal(own) if partial.depthwise else own
    if old.bias is not None:
        bias = bias + mix[:, :c] @ old.bias.detach().double()
    fill(new.weight, torch.einsum("om,mikl->oikl", mix, kernel))
    if new.bias is not None:
        fill(new.bias, bias)
    return new


def of_inputs(pointwise: nn.Conv2d, channels: slice, *, bias: bool) -> nn.Conv2d:
    """What a dense convolution makes of some of its input channels."""
    new = copy.deepcopy(pointwise)
    new.weight = _part(pointwise.weight, (slice(None), channels))
    new.in_channels = new.weight.shape[1]
    if not bias:
        new.bias = None
    return new


def without_inputs(pointwise: nn.Conv2d, channels: slice) -> nn.Conv2d:
    """A copy of a dense convolution that leaves some of its input channels out of account."""
    new = copy.deepcopy(pointwise)
    with torch.no_grad():
        new.weight[:, channels] = 0
    return new


def of_outputs(conv: nn.Module, channels: slice) -> nn.Module:
    """The part of an ungrouped convolution that makes some of its output channels."""
    assert isinstance(conv, (nn.Conv2d, nn.ConvTranspose2d)) and conv.groups == 1
    new = copy.deepcopy(conv)
    transposed = isinstance(conv, nn.ConvTranspose2d)
    new.weight = _part(conv.weight, (slice(None), channels) if transposed else (channels,))
    new.out_channels = new.weight.shape[1 if transposed else 0]
    if conv.bias is not None:
        new.bias = _part(conv.bias, (channels,))
    return new


def of_channels(module: nn.Module, channels: slice, total: int) -> nn.Module:
    """What a module that treats every one of `total` channels by itself does to some of them."""
    new = copy.deepcopy(module)
    if isinstance(module, nn.BatchNorm2d):
        assert isinstance(new, nn.BatchNorm2d)
        new.num_features = len(range(total)[channels])
    for name, parameter in module._parameters.items():
        if parameter is not None and parameter.shape == (total,):
            setattr(new, name, _part(parameter, (channels,)))
    for name, buffer in module._buffers.items():
        if buffer is not None and buffer.shape == (total,):
            setattr(new, name, buffer[channels].clone())
    if isinstance(new, nn.PReLU):
        new.num_parameters = new.weight.numel()
    return new


def _part(parameter: Tensor, index: tuple[slice, ...]) -> nn.Parameter:
    return nn.Parameter(parameter.detach()[index].clone(), requires_grad=parameter.requires_grad)


def _conv_like(
    old: nn.Conv2d, in_channels: int, out_channels: int, groups: int = 1, bias: bool | None = None
) -> nn.Conv2d:
    """A convolution of the geometry of one that keeps the size."""
    return nn.Conv2d(
        in_channels,
        out_channels,
        (old.kernel_size[0], old.kernel_size[1]),
        padding="same",
        dilation=(old.dilation[0], old.dilation[1]),
        groups=groups,
        bias=old.bias is not None if bias is None else bias,
        padding_mode=old.padding_mode,
        device=old.weight.device,
        dtype=old.weight.dtype,
    )
