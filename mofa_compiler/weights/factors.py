"""A dense convolution as a cheap one and a pointwise one."""

from __future__ import annotations

import copy
from collections import OrderedDict
from fractions import Fraction

import torch
from torch import Tensor, nn

from ..base.option_types import convolved_channels
from ..nn.partial_conv import PaddingMode, PConv2d, PDWConv2d
from .kernels import add_bias, dirac, fill, is_diagonal, with_room
from .prior import correlation_of, covariance, gains


def fill_factors(
    spatial: nn.Module, pointwise: nn.Conv2d, target: Tensor, untouched_gains: Tensor, correlation: Tensor
) -> None:
    """Fill `spatial` then `pointwise` to do what a dense convolution with kernel `target` does, as nearly as they can.

    Args:
        spatial: PConv2d, PDWConv2d or depthwise Conv2d over I channels.
        pointwise: 1x1 convolution I → O.
        target: (O, I, k, k), with the kernel size and dilation of `spatial`.
        untouched_gains: (O, I), the scalars that best replace the target's kernels.
        correlation: (k*k, k*k) of the pixels under the kernel.
    """
    if target.is_meta:
        return
    mix = untouched_gains.double().clone()
    target = target.double()
    half, inverse = square_roots(correlation)
    if isinstance(spatial, PConv2d):
        c = spatial.convolved
        kernel, mix[:, :c] = _low_rank(target[:, :c], half, inverse)
        fill(spatial.conv.weight, kernel)
    else:
        conv = spatial.conv if isinstance(spatial, PDWConv2d) else spatial
        assert isinstance(conv, nn.Conv2d)
        c = conv.in_channels
        kernel, mix[:, :c] = _rank_one_each(target[:, :c], half, inverse)
        fill(conv.weight, kernel)
    fill(pointwise.weight, mix[:, :, None, None])


def factor_dense(weight: Tensor, spatial: PConv2d, pointwise: nn.Conv2d) -> None:
    """Fill a partial convolution and the pointwise one behind it from a dense kernel (O, I, k, k)."""
    if weight.is_meta:
        return
    correlation = correlation_of(spatial.conv).to(weight.device)
    fill_factors(spatial, pointwise, weight, gains(weight, correlation), correlation)


def cheap_convolution(
    target: Tensor,
    untouched_gains: Tensor,
    *,
    kind: str,
    portion: Fraction,
    bias: Tensor | None,
    like: Tensor,
    padding_mode: PaddingMode = "zeros",
) -> OrderedDict[str, nn.Module]:
    """Modules that do, as nearly as their kind can, what a dense convolution with kernel `target` (O, I, k, k) does.

    `kind` is pconv, separable, dense or pointwise; the first two come with a pointwise convolution, which carries the
    bias; the last is that alone.
    Device and dtype are those of `like`.
    """
    outputs, channels, size, _ = target.shape
    if kind == "dense":
        conv = nn.Conv2d(
            channels,
            outputs,
            size,
            padding="same",
            bias=bias is not None,
            padding_mode=padding_mode,
            device=like.device,
            dtype=like.dtype,
        )
        fill(conv.weight, target)
        return _with_bias(OrderedDict(conv=conv), conv, bias)
    pointwise = nn.Conv2d(channels, outputs, 1, bias=bias is not None, device=like.device, dtype=like.dtype)
    if kind == "pointwise":
        fill(pointwise.weight, untouched_gains[:, :, None, None])
        return _with_bias(OrderedDict(pointwise=pointwise), pointwise, bias)
    correlation = covariance(size, size).to(like.device)
    spatial: nn.Module
    if kind == "separable":
        spatial = nn.Conv2d(
            channels,
            channels,
            size,
            padding="same",
            groups=channels,
            bias=False,
            padding_mode=padding_mode,
            device=like.device,
            dtype=like.dtype,
        )
        name = "depthwise"
    else:
        convolved, _ = convolved_channels(channels, portion)
        spatial = PConv2d(channels, convolved, size, padding_mode=padding_mode, device=like.device, dtype=like.dtype)
        name = "pconv"
    fill_factors(spatial, pointwise, target, untouched_gains, correlation)
    return _with_bias(OrderedDict([(name, spatial), ("pointwise", pointwise)]), pointwise, bias)


def _with_bias(
    modules: OrderedDict[str, nn.Module], conv: nn.Conv2d, bias: Tensor | None
) -> OrderedDict[str, nn.Module]:
    if bias is not None and conv.bias is not None:
        fill(conv.bias, bias.detach())
    return modules


def square_roots(correlation: Tensor) -> tuple[Tensor, Tensor]:
    values, vectors = torch.linalg.eigh(correlation)
    values = values.clamp_min(1e-12)
    return (vectors * values.sqrt()) @ vectors.T, (vectors / values.sqrt()) @ vectors.T


def _low_rank(target: Tensor, half: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor]:
    """(O, c, k, k) → kernel (c, c, k, k), mix (O, c): the best c products, from the Gram matrix's eigenvectors."""
    outputs, c, height, width = target.shape
    weighted = (target.flatten(2) @ half).flatten(1)
    rank = min(c, outputs)
    _, vectors = torch.linalg.eigh(weighted @ weighted.T)
    left = vectors[:, -rank:].flip(1)
    right = (left.T @ weighted).view(rank, c, -1) @ inverse
    # Balanced factors train better than a unit mix and a small kernel.
    scale = right.flatten(1).norm(dim=1).sqrt()
    safe = torch.where(scale == 0, torch.ones_like(scale), scale)
    kernel = dirac(c, (height, width), depthwise=False).to(target.device)  # what no product needs starts as identity
    mix = target.new_zeros(outputs, c)
    kernel[:rank] = (right / safe.view(-1, 1, 1)).view(rank, c, height, width)
    mix[:, :rank] = left * safe
    return kernel, mix


def _rank_one_each(target: Tensor, half: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor]:
    """(O, c, k, k) → kernels (c, 1, k, k), mix (O, c): the best single kernel of each input channel."""
    _, c, height, width = target.shape
    weighted = target.flatten(2).transpose(0, 1) @ half
    _, vectors = torch.linalg.eigh(weighted.transpose(1, 2) @ weighted)
    right = vectors[:, :, -1]
    mix = (weighted @ right.unsqueeze(2)).squeeze(2).T
    kernels = right @ inverse
    # A unit kernel sum (or norm, where it vanishes) keeps the pointwise weights in the scale of a dense layer's.
    total = kernels.sum(1, keepdim=True)
    norm = kernels.norm(dim=1, keepdim=True)
    scale = torch.where(total.abs() > 0.1 * norm, total, norm)
    return (kernels / scale).view(c, 1, height, width), mix * scale.T


def depthwise_from_partial(old: PConv2d, new: PDWConv2d, pointwise: nn.Conv2d | None) -> nn.Conv2d | None:
    """Fill `new` with the best single kernel for each convolved channel, seen through the pointwise layer behind.

    Returns the pointwise layer to go with it; without one, only the diagonal of the old kernel can be kept.
    """
    c = old.convolved
    if old.conv.bias is not None and new.conv.bias is not None:
        fill(new.conv.bias, old.conv.bias.detach())
    kernel = old.conv.weight.detach()
    if pointwise is None or is_diagonal(kernel):
        index = torch.arange(c)
        fill(new.conv.weight, kernel[index, index].unsqueeze(1))
        return None
    if kernel.is_meta:
        return with_room(pointwise, shifted=old.conv.bias is not None)
    height, width = kernel.shape[2:]
    mix = pointwise.weight.detach().double()[:, :c, 0, 0]
    target = (mix @ kernel.double().flatten(1)).view(-1, c, height, width)
    half, inverse = square_roots(correlation_of(old.conv).to(kernel.device))
    kernels, mixed = _rank_one_each(target, half, inverse)
    fill(new.conv.weight, kernels)
    adjusted = copy.deepcopy(pointwise)
    weight = adjusted.weight.detach().double().clone()
    weight[:, :c, 0, 0] = mixed
    fill(adjusted.weight, weight)
    if old.conv.bias is not None:
        add_bias(adjusted, (mix - mixed) @ old.conv.bias.detach().double())
    return adjusted
