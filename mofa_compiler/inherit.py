"""Old weights to new weights in closed form, without data.

Every fit minimizes the expected squared error of a layer's output over inputs whose pixels are correlated as in a
first-order autoregressive field: correlation 0.7 ** distance, the same for every channel, channels uncorrelated.
(Images lie near 0.95 and deep features near 0.5; white noise, 0, would throw the mean of a kernel away and constant
input, 1, everything else.)
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .layers import PaddingMode, PartialConv2d, PConv2d, PDWConv2d
from .options import convolved_channels
from .survey import Layer, Step

CORRELATION = 0.7
"""Between neighbouring pixels. On the published PMRID weights: 0.95 loses 0.5 dB against 0.7, 0.5 loses 0.1 dB"""

_SMALLEST_GAIN = 0.02
"""Of a kernel's norm: below it an untouched channel's gain is raised, so that its kernel can be restored later"""

Kind = TypeVar("Kind", bound=PartialConv2d)

_HOMOGENEOUS = {"ReLU", "relu", "LeakyReLU", "leaky_relu"}


def covariance(height: int, width: int, step: tuple[int, int] = (1, 1)) -> Tensor:
    """(h*w, h*w) correlation of the pixels under a kernel whose taps lie `step` (the dilation) apart."""
    rows, columns = torch.meshgrid(
        torch.arange(height, dtype=torch.float64) * step[0],
        torch.arange(width, dtype=torch.float64) * step[1],
        indexing="ij",
    )
    positions = torch.stack([rows.flatten(), columns.flatten()], dim=1)
    return CORRELATION ** torch.cdist(positions, positions)


def gains(kernels: Tensor, correlation: Tensor) -> Tensor:
    """The scalar that best replaces each kernel. (..., k, k) → (...); the center tap is the pixel that it scales."""
    taps = kernels.flatten(-2).double()
    height, width = kernels.shape[-2:]
    center = (height - 1) // 2 * width + (width - 1) // 2
    return taps @ correlation[:, center]


def dirac(channels: int, kernel_size: tuple[int, ...], depthwise: bool) -> Tensor:
    """The kernel of a convolution that passes every channel through: (C, 1 or C, k, k), float64."""
    kernel = torch.zeros(channels, 1 if depthwise else channels, *kernel_size, dtype=torch.float64)
    index = torch.arange(channels)
    kernel[index, 0 if depthwise else index, (kernel_size[0] - 1) // 2, (kernel_size[1] - 1) // 2] = 1
    return kernel


def depthwise_like(kernels: Tensor, old: nn.Conv2d) -> nn.Conv2d:
    """A stride-1 depthwise convolution with these kernels (C, 1, k, k) and the bias and padding mode of `old`."""
    channels, _, height, width = kernels.shape
    new = nn.Conv2d(
        channels,
        channels,
        (height, width),
        padding="same",
        groups=channels,
        bias=old.bias is not None,
        padding_mode=old.padding_mode,
        device=old.weight.device,
        dtype=old.weight.dtype,
    )
    fill(new.weight, kernels)
    if new.bias is not None and old.bias is not None:
        fill(new.bias, old.bias.detach())
    return new


def diagonal(kernels: Tensor) -> Tensor:
    """Depthwise kernels (C, 1, k, k) as the dense kernel (C, C, k, k) that does the same."""
    channels = kernels.shape[0]
    dense = kernels.new_zeros(channels, channels, *kernels.shape[2:])
    index = torch.arange(channels)
    dense[index, index] = kernels[:, 0]
    return dense


# --- a depthwise convolution becomes partial: what the untouched channels lose goes into a neighbour -----------------


@dataclass(frozen=True)
class Affine:
    """y[c] = scale[c] * x[c] + shift[c], or scale[c] a kernel and * a convolution."""

    scale: Tensor
    shift: Tensor

    def only(self, channels: slice) -> Affine:
        """The same for some channels, the identity for the others."""
        scale, shift = torch.ones_like(self.scale), torch.zeros_like(self.shift)
        scale[channels], shift[channels] = self.scale[channels], self.shift[channels]
        return Affine(scale, shift)


@dataclass(frozen=True)
class Folding:
    """Where an affine map that a layer owes to the layers behind it went: which neighbours took up what."""

    neighbours: Mapping[str, nn.Module]
    folded: Affine | None = None
    side: str = ""
    note: str = ""


def partial_from_depthwise(
    kernels: Tensor, bias: Tensor | None, new: PartialConv2d, untouched_gains: Tensor | None = None
) -> Affine:
    """Fill a partial convolution from depthwise kernels (C, 1, k, k) and bias (C,).

    `untouched_gains` (C,) are the scalars that best replace the kernels, computed from them unless given.

    Returns what its output still lacks: the gain of the untouched channels, and every bias it has no place for.
    """
    c = new.convolved
    fill(new.conv.weight, kernels[:c] if new.depthwise else diagonal(kernels[:c]))
    scale = untouched_gains
    if scale is None:
        scale = gains(kernels[:, 0], _correlation_of(new.conv).to(kernels.device))
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
    weight = kernels.detach().double()
    shift = weight.new_zeros(len(weight)) if bias is None else bias.detach().double()
    if folding.folded:
        scale = torch.where(folding.folded.scale == 0, torch.ones_like(shift), folding.folded.scale)
        weight = weight / scale.view(-1, 1, 1, 1)
        if folding.side == "behind":
            shift = (shift - folding.folded.shift) / scale
        else:  # the input arrives with the shift already in it
            shift = shift - weight.sum((1, 2, 3)) * folding.folded.shift
    channels, size = kernels.shape[0], (kernels.shape[2], kernels.shape[3])
    ideal = nn.Conv2d(
        channels, channels, size, padding="same", groups=channels, device=kernels.device, dtype=kernels.dtype
    )
    fill(ideal.weight, weight)
    assert ideal.bias is not None
    fill(ideal.bias, shift)
    return ideal


def compensate(layer: Layer, owed: Affine, convolved: int, modules: Mapping[str, nn.Module]) -> Folding:
    """Fold what the output of a partial convolution at `layer` lacks into the linear layer next to it.

    Tried in this order: a convolution or batch normalization directly behind; the convolution directly before; a
    convolution behind activations that commute with a positive scale.
    """
    behind = [step for step in layer.behind if step.kind != "identity"]
    if behind and _takes_input_scale(behind[0]):
        path = str(behind[0].path)
        return Folding({path: scale_inputs(modules[path], owed)}, owed, "behind")
    untouched = owed.only(slice(convolved, None))
    if layer.source and type(layer.source.module) is nn.Conv2d:
        path = layer.source.path
        lost = bool(owed.shift[:convolved].any())
        note = "bias of the convolved channels dropped" if lost else ""
        return Folding({path: scale_outputs(modules[path], untouched)}, untouched, "before", note)
    while behind and behind[0].operation in _HOMOGENEOUS:
        behind = behind[1:]
    if behind and _takes_input_scale(behind[0]) and not isinstance(behind[0].module, _BatchNorm):
        path = str(behind[0].path)
        positive = Affine(owed.scale.clamp_min(0), torch.zeros_like(owed.shift))
        note = "bias dropped" if bool(owed.shift.any()) else ""
        return Folding({path: scale_inputs(modules[path], positive)}, positive, "behind", note)
    return Folding({}, note="untouched channels not compensated: no linear layer next to it that only it uses")


def without_bias(conv: nn.Module) -> nn.Conv2d:
    """A copy of a convolution with its bias dropped."""
    new = copy.deepcopy(conv)
    assert isinstance(new, nn.Conv2d)
    new.bias = None
    return new


def widen(old: PConv2d, new: PConv2d) -> None:
    """Fill a wider partial convolution that computes what `old` does: the new channels are passed through."""
    c, conv = old.convolved, new.conv
    kernel = dirac(new.convolved, conv.kernel_size, depthwise=False)
    kernel[:c] = 0
    kernel[:c, :c] = old.conv.weight.detach()
    fill(conv.weight, kernel)
    if conv.bias is not None and old.conv.bias is not None:
        fill(conv.bias, F.pad(old.conv.bias.detach(), (0, new.convolved - c)))


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
        device=conv.weight.device,
        dtype=conv.weight.dtype,
    )


def restored_kernels(old: PConv2d, ideal: nn.Conv2d) -> tuple[Affine, int]:
    """The per-channel kernels (c, 1, k, k) and biases (c,) that `old` should have after the depthwise `ideal`.

    A channel whose original bias has no place in `old` keeps its present kernel. Returned as the scale and shift of
    an `Affine`, with the number of channels that would change (plus one where `old` mixes channels).
    """
    c, index = old.convolved, torch.arange(old.convolved)
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
    fill(new.conv.weight, restored.scale if new.depthwise else diagonal(restored.scale))
    if new.conv.bias is not None:
        fill(new.conv.bias, restored.shift)
    return changed


def _takes_input_scale(step: Step) -> bool:
    module = step.module
    if isinstance(module, _BatchNorm):
        return module.running_mean is not None
    return type(module) is nn.Conv2d and module.groups == 1


def scale_inputs(module: nn.Module, owed: Affine) -> nn.Module:
    """A copy of `module` that does to x what it did to owed.scale * x + owed.shift (exact but for zero padding)."""
    new = copy.deepcopy(module)
    if isinstance(new, _BatchNorm):
        return _scale_batch_norm(new, owed)
    assert isinstance(new, nn.Conv2d)
    weight = new.weight.detach().double()
    shift = weight.sum((2, 3)) @ owed.shift
    fill(new.weight, weight * owed.scale.view(1, -1, 1, 1))
    _add_bias(new, shift)
    return new


def scale_outputs(module: nn.Module, owed: Affine) -> nn.Module:
    """A copy of a convolution with owed.scale * y + owed.shift for output y."""
    new = copy.deepcopy(module)
    assert isinstance(new, nn.Conv2d)
    fill(new.weight, new.weight.detach().double() * owed.scale.view(-1, 1, 1, 1))
    if new.bias is not None:
        fill(new.bias, new.bias.detach().double() * owed.scale)
    _add_bias(new, owed.shift)
    return new


def _add_bias(conv: nn.Conv2d, shift: Tensor) -> None:
    if conv.bias is not None:
        fill(conv.bias, conv.bias.detach().double() + shift)
    elif bool(shift.any()):
        conv.bias = nn.Parameter(shift.to(conv.weight), requires_grad=conv.weight.requires_grad)


def _scale_batch_norm(norm: _BatchNorm, owed: Affine) -> _BatchNorm:
    """Move the scale into the running statistics, so that training, which normalizes anew, stays unaffected."""
    assert norm.running_mean is not None and norm.running_var is not None
    safe = torch.where(owed.scale == 0, torch.ones_like(owed.scale), owed.scale)
    mean = (norm.running_mean.double() - owed.shift) / safe
    variance = (norm.running_var.double() + norm.eps) / safe.square() - norm.eps
    # A variance cannot be negative: where the scale is that large, the rest of it goes into the weight.
    kept = variance.clamp_min(0)
    factor = safe * ((kept + norm.eps).sqrt() / (norm.running_var.double() + norm.eps).sqrt())
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(kept)
    if norm.affine:
        fill(norm.weight, norm.weight.detach().double() * factor)
    return norm


# --- a dense convolution becomes a cheap one and a pointwise one ----------------------------------------------------


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
    mix = untouched_gains.double().clone()
    target = target.double()
    half, inverse = _square_roots(correlation)
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
    correlation = _correlation_of(spatial.conv).to(weight.device)
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
        conv = nn.Conv2d(channels, outputs, size, padding="same", bias=bias is not None, padding_mode=padding_mode)
        conv = conv.to(like)
        fill(conv.weight, target)
        return _with_bias(OrderedDict(conv=conv), conv, bias)
    pointwise = nn.Conv2d(channels, outputs, 1, bias=bias is not None).to(like)
    if kind == "pointwise":
        fill(pointwise.weight, untouched_gains[:, :, None, None])
        return _with_bias(OrderedDict(pointwise=pointwise), pointwise, bias)
    correlation = covariance(size, size).to(like.device)
    spatial: nn.Module
    if kind == "separable":
        spatial = nn.Conv2d(
            channels, channels, size, padding="same", groups=channels, bias=False, padding_mode=padding_mode
        ).to(like)
        name = "depthwise"
    else:
        spatial = PConv2d(channels, convolved_channels(channels, portion)[0], size, padding_mode=padding_mode).to(like)
        name = "pconv"
    fill_factors(spatial, pointwise, target, untouched_gains, correlation)
    return _with_bias(OrderedDict([(name, spatial), ("pointwise", pointwise)]), pointwise, bias)


def _with_bias(
    modules: OrderedDict[str, nn.Module], conv: nn.Conv2d, bias: Tensor | None
) -> OrderedDict[str, nn.Module]:
    if bias is not None and conv.bias is not None:
        fill(conv.bias, bias.detach())
    return modules


def _square_roots(correlation: Tensor) -> tuple[Tensor, Tensor]:
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
    height, width = kernel.shape[2:]
    mix = pointwise.weight.detach().double()[:, :c, 0, 0]
    target = (mix @ kernel.double().flatten(1)).view(-1, c, height, width)
    half, inverse = _square_roots(_correlation_of(old.conv).to(kernel.device))
    kernels, mixed = _rank_one_each(target, half, inverse)
    fill(new.conv.weight, kernels)
    adjusted = copy.deepcopy(pointwise)
    weight = adjusted.weight.detach().double().clone()
    weight[:, :c, 0, 0] = mixed
    fill(adjusted.weight, weight)
    return adjusted


def is_diagonal(kernel: Tensor) -> bool:
    """Whether a dense kernel (C, C, k, k) mixes no channels."""
    index = torch.arange(kernel.shape[0])
    return int(kernel.count_nonzero()) == int(kernel[index, index].count_nonzero())


def _correlation_of(conv: nn.Conv2d) -> Tensor:
    height, width = conv.kernel_size
    return covariance(height, width, (conv.dilation[0], conv.dilation[1]))


# --- resampling and convolution are taken apart ---------------------------------------------------------------------


def projection(old: Callable[[Tensor], Tensor], new: Callable[[Tensor], Tensor], window: int) -> Tensor:
    """The matrix that maps an old operator's kernel taps to the new operator's taps that fit it best.

    Args:
        old, new: map every unit impulse in a window, (window², 1, window, window), to the responses of every single
            tap at the output pixels of one period: (window², taps, pixels).
        window: side of the window, in input pixels.

    Returns:
        (old taps, new taps): new kernel = old kernel @ matrix.
    """
    impulses = torch.eye(window * window, dtype=torch.float64).view(-1, 1, window, window)
    was, is_ = old(impulses), new(impulses)
    correlation = covariance(window, window)
    gram = torch.einsum("itp,ij,jsp->ts", is_, correlation, is_)
    cross = torch.einsum("itp,ij,jsp->ts", was, correlation, is_)
    ridge = 1e-9 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    matrix: Tensor = torch.linalg.solve(gram + ridge, cross.T).T
    return matrix


def single_taps(height: int, width: int) -> Tensor:
    """(h*w, 1, h, w): one kernel for each tap."""
    return torch.eye(height * width, dtype=torch.float64).view(-1, 1, height, width)


def convolve_taps(x: Tensor, kernel_size: int) -> Tensor:
    """Responses of every single tap of a k x k kernel, zero padded: (n, 1, h, w) → (n, k*k, h, w)."""
    return F.conv2d(x, single_taps(kernel_size, kernel_size), padding=kernel_size // 2)


def period(responses: Tensor, factor: int) -> Tensor:
    """The `factor` x `factor` output pixels of one period in the middle: (n, t, h, w) → (n, t, factor²)."""
    start = responses.shape[-1] // 2 // factor * factor
    return responses[..., start : start + factor, start : start + factor].flatten(2)


def fill(parameter: Tensor, values: Tensor) -> None:
    """Copy values into a parameter, in its dtype and on its device."""
    with torch.no_grad():
        parameter.copy_(values.to(parameter))
