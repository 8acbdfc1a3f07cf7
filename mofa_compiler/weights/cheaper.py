"""Convolutions with less to compute: smaller kernels, channels mixed before they are convolved, or not convolved."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .factors import square_roots
from .prior import correlation_of, gains


def shrunk(old: nn.Conv2d, new: nn.Conv2d) -> Tensor:
    """The kernel (O, I, h, w) of `new` that comes closest to that of `old`, which is larger and has the same center."""
    if old.weight.is_meta:
        return torch.empty_like(new.weight)
    height, width = old.kernel_size
    top, left = ((a - b) // 2 for a, b in zip(old.kernel_size, new.kernel_size, strict=True))
    inside = torch.zeros(height, width, dtype=torch.bool)
    inside[top : top + new.kernel_size[0], left : left + new.kernel_size[1]] = True
    inner = inside.flatten()
    correlation = correlation_of(old).to(old.weight.device)
    taps = old.weight.detach().double().flatten(2)
    fitted: Tensor = torch.linalg.solve(correlation[inner][:, inner], correlation[inner] @ taps.flatten(0, 1).T).T
    return fitted.reshape(new.weight.shape)


def mixed_first(depthwise: nn.Conv2d, pointwise: nn.Conv2d, *, spatial: bool) -> tuple[Tensor, Tensor]:
    """Weights for a pointwise convolution and the depthwise one behind it, instead of the other way round.

    Returns (O, C) and kernels (O, 1, h, w): of every output the best product of channels and pixels; without `spatial`
    the best mix alone, and kernels that mean nothing.
    """
    mix = pointwise.weight.detach().double().flatten(1)
    kernels = depthwise.weight.detach().double()
    if mix.is_meta:
        return mix, kernels.new_empty(len(mix), *kernels.shape[1:])
    correlation = correlation_of(depthwise).to(kernels.device)
    if not spatial:
        return mix * gains(kernels[:, 0], correlation), kernels[: len(mix)]
    half, inverse = square_roots(correlation)
    weighted = kernels.flatten(1) @ half
    found, taps = torch.empty_like(mix), kernels.new_empty(len(mix), kernels[0].numel())
    for index, row in enumerate(mix):
        target = row[:, None] * weighted
        _, vectors = torch.linalg.eigh(target.T @ target)
        right = vectors[:, -1]
        kernel = right @ inverse
        # a kernel with unit sum (or norm, where the sum vanishes) keeps the mix in the scale that it had
        total, norm = kernel.sum(), kernel.norm()
        scale = total if total.abs() > 0.1 * norm else norm
        found[index], taps[index] = (target @ right) * scale, kernel / scale
    return found, taps.view(len(mix), 1, *kernels.shape[2:])


def joint_bias(depthwise: nn.Conv2d, pointwise: nn.Conv2d) -> Tensor:
    """(O,): the bias of a depthwise convolution and the pointwise one behind it, at the output of the latter."""
    mix = pointwise.weight.detach().double().flatten(1)
    bias = mix.new_zeros(len(mix)) if pointwise.bias is None else pointwise.bias.detach().double()
    return bias if depthwise.bias is None else bias + mix @ depthwise.bias.detach().double()
