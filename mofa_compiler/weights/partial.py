"""Depthwise kernels into partial convolutions, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..analysis.layers import Layer
from ..nn.partial_conv import PartialConv2d, PConv2d
from .folding import Affine, Folding, compensate
from .kernels import diagonal, dirac, fill, is_diagonal, without_bias
from .prior import correlation_of, gains

_SMALLEST_GAIN = 0.02
"""Of a kernel's norm: below it an untouched channel's gain is raised, so that its kernel can be restored later"""


def partial_from_depthwise(
    kernels: Tensor, bias: Tensor | None, new: PartialConv2d, untouched_gains: Tensor | None = None
) -> Affine:
    """Fill a partial convolution from depthwise kernels (C, 1, k, k) and bias (C,).

    `untouched_gains` (C,) are the scalars that best replace the kernels, computed from them unless given.

    Returns what its output still lacks: the gain of the untouched channels, and every bias it has no place for.
    """
    c = new.convolved
    if kernels.is_meta:
        moved = torch.full((new.channels,), float(bias is not None))
        moved[: c if new.conv.bias is not None else 0] = 0
        return Affine(kernels.new_empty(new.channels), moved)
    fill(new.conv.weight, kernels[:c] if new.depthwise else diagonal(kernels[:c]))
    scale = untouched_gains
    if scale is None:
        scale = gains(kernels[:, 0], correlation_of(new.conv).to(kernels.device))
    smallest = _SMALLEST_GAIN * kernels.double().flatten(1).norm(dim=1)
    scale = torch.where(scale.abs() < smallest, smallest.copysign(scale), scale)
    scale[:c] = 1
    shift = torch.zeros_like(scale) if bias is None else bias.detach().double().clone()
    if new.conv.bias is not None:
        fill(new.conv.bias, shift[:c])
        shift[:c] = 0
    return Affine(scale, shift)


def ideal_depthwise(kernels: Tensor, bias: Tensor | None, folding: Folding) -> nn.Conv2d:
    """The depthwise convolution over all channels that does the original's work between the adjusted neighbours."""
    channels, size = kernels.shape[0], (kernels.shape[2], kernels.shape[3])
    ideal = nn.Conv2d(
        channels, channels, size, padding="same", groups=channels, device=kernels.device, dtype=kernels.dtype
    )
    if kernels.is_meta:
        return ideal
    weight = kernels.detach().double()
    shift = weight.new_zeros(len(weight)) if bias is None else bias.detach().double()
    if folding.folded:
        scale = torch.where(folding.folded.scale == 0, torch.ones_like(shift), folding.folded.scale)
        weight = weight / scale.view(-1, 1, 1, 1)
        if folding.side == "behind":
            shift = (shift - folding.folded.shift) / scale
        else:  # the input arrives with the shift already in it
            shift = shift - weight.sum((1, 2, 3)) * folding.folded.shift
    fill(ideal.weight, weight)
    assert ideal.bias is not None
    fill(ideal.bias, shift)
    return ideal


def widen(old: PConv2d, new: PConv2d) -> None:
    """Fill a wider partial convolution that computes what `old` does: the new channels are passed through."""
    c, conv = old.convolved, new.conv
    if conv.weight.is_meta:
        return
    kernel = dirac(new.convolved, conv.kernel_size, depthwise=False)
    kernel[:c] = 0
    kernel[:c, :c] = old.conv.weight.detach()
    fill(conv.weight, kernel)
    if conv.bias is not None and old.conv.bias is not None:
        fill(conv.bias, F.pad(old.conv.bias.detach(), (0, new.convolved - c)))


def restored_kernels(old: PConv2d, ideal: nn.Conv2d) -> tuple[Affine, int]:
    """The per-channel kernels (c, 1, k, k) and biases (c,) that `old` should have after the depthwise `ideal`.

    A channel whose original bias has no place in `old` keeps its present kernel. Returned as the scale and shift of
    an `Affine`, with the number of channels that would change (plus one where `old` mixes channels).
    """
    c, index = old.convolved, torch.arange(old.convolved)
    if old.conv.weight.is_meta:  # it may be any number: one that claims nothing
        return Affine(ideal.weight[:c], ideal.weight.new_empty(c)), c
    current = old.conv.weight.detach()[index, index].unsqueeze(1)
    kernels, bias = ideal.weight.detach()[:c], ideal.bias
    assert bias is not None
    shift = bias.detach()[:c]
    changed = (kernels != current).flatten(1).any(1)
    if old.conv.bias is None:
        homeless = shift != 0
        kernels = torch.where(homeless.view(-1, 1, 1, 1), current, kernels)
        changed &= ~homeless
    else:
        changed |= shift != old.conv.bias.detach()
    return Affine(kernels, shift), int(changed.sum()) + (not is_diagonal(old.conv.weight.detach()))


def restore_kernels(old: PConv2d, new: PartialConv2d, ideal: nn.Conv2d) -> int:
    """Fill `new` with `restored_kernels`; returns how many channels then differ from what `old` computed."""
    restored, changed = restored_kernels(old, ideal)
    if new.conv.weight.is_meta:
        return changed
    fill(new.conv.weight, restored.scale if new.depthwise else diagonal(restored.scale))
    if new.conv.bias is not None:
        fill(new.conv.bias, restored.shift)
    return changed


def separable_from_depthwise(
    layer: Layer,
    kernels: Tensor,
    bias: Tensor | None,
    new: PartialConv2d,
    modules: Mapping[str, nn.Module],
    *,
    drop_bias: bool,
    untouched_gains: Tensor | None = None,
) -> tuple[Folding, nn.Conv2d]:
    """Fill a partial convolution that takes a depthwise one's place, and fold what it lacks into the layers next to it.

    `drop_bias` drops the bias of the pointwise convolution behind it, as the paper's authors did. Returns the adjusted
    neighbours and the depthwise convolution that `new` then stands for.
    """
    owed = partial_from_depthwise(kernels, bias, new, untouched_gains)
    folding = compensate(layer, owed, new.convolved, modules)
    if drop_bias and layer.pointwise and layer.pointwise.free:
        path = str(layer.pointwise.path)
        dropped = without_bias(folding.neighbours.get(path, modules[path]))
        folding = replace(folding, neighbours={**folding.neighbours, path: dropped})
    return folding, ideal_depthwise(kernels, bias, folding)
