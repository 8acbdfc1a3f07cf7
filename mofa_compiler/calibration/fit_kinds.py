"""The fits of each kind of layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from ..nn.partial_conv import PartialConv2d, PConv2d
from ..rewriting.layer_surgery import origin, selection
from ..weights import fill
from .correspondence import Link
from .fit_base import ALL, STRENGTHS, Candidate, Fit, Gain, RidgeFit, Site, Solution
from .lockstep import Batch, Lockstep
from .moments import Moments
from .regression import nearest, reduced_rank, ridge


class ConvolutionFit(RidgeFit):
    """A convolution of one group."""

    picks = True

    def __init__(self, path: str, conv: nn.Conv2d, sites: Sequence[Site]):
        super().__init__([path], sites)
        self.conv, self.intercept = conv, conv.bias is not None

    def features(self, x: Tensor, pixels: Tensor | None = None) -> Tensor:
        return unfolded(x, self.conv, pixels)

    def start(self) -> Solution:
        return (affine(self.conv),)

    def fill(self, solution: Solution) -> None:
        put(self.conv, solution[0])


class LinearFit(RidgeFit):
    """A linear layer, whose channels lie along the last dimension."""

    def __init__(self, path: str, linear: nn.Linear, sites: Sequence[Site]):
        super().__init__([path], sites)
        self.linear_layer, self.intercept = linear, linear.bias is not None

    def features(self, x: Tensor, pixels: Tensor | None = None) -> Tensor:
        """(1, …, C) → (1, C, rows, 1)."""
        return x.reshape(1, -1, x.shape[-1]).mT[..., None]

    def target_rows(self, y: Tensor, pixels: Tensor) -> Tensor:
        return self.rows(self.features(y), pixels)

    def start(self) -> Solution:
        return (affine(self.linear_layer),)

    def fill(self, solution: Solution) -> None:
        put(self.linear_layer, solution[0])


class FeederFit(ConvolutionFit):
    """A convolution that a lone partial one reads: it takes up what that leaves undone in the untouched channels."""

    def __init__(self, path: str, conv: nn.Conv2d, sites: Sequence[Site], own: fx.Node, convolved: int):
        super().__init__(path, conv, sites)
        self._own, self._selected, self._convolved = str(origin(own)), selection(own), convolved

    def wanted(self, networks: Lockstep, batch: Batch, link: Link) -> Tensor:
        before = networks.original.wanted(batch, self._own, self._selected)
        behind = super().wanted(networks, batch, link)
        return torch.cat([before[:, : self._convolved], behind[:, self._convolved :]], dim=1)


class KernelFit(ConvolutionFit):
    """The kernel of a `PConv2d` with no pointwise convolution behind it."""

    def __init__(self, path: str, spatial: PConv2d, sites: Sequence[Site]):
        super().__init__(path, spatial.conv, sites)
        self._convolved = spatial.convolved

    def features(self, x: Tensor, pixels: Tensor | None = None) -> Tensor:
        return unfolded(x[:, : self._convolved], self.conv, pixels)

    def wanted(self, networks: Lockstep, batch: Batch, link: Link) -> Tensor:
        return super().wanted(networks, batch, link)[:, : self._convolved]


class TransposedFit(RidgeFit):
    """A transposed convolution whose outputs do not overlap; its bias, the same in all phases, is kept."""

    intercept = False

    def __init__(self, path: str, conv: nn.ConvTranspose2d, sites: Sequence[Site]):
        super().__init__([path], sites)
        self.conv = conv

    def features(self, x: Tensor, pixels: Tensor | None = None) -> Tensor:
        return x

    def target_rows(self, y: Tensor, pixels: Tensor) -> Tensor:
        """(1, O, s·H, s·W) with the phases as channels: (pixels, O·s·s)."""
        return self.rows(F.pixel_unshuffle(y, self.conv.stride[0]), pixels)

    def start(self) -> Solution:
        weight = self.conv.weight.detach().double().flatten(1)
        bias = weight.new_zeros(self.conv.out_channels) if self.conv.bias is None else self.conv.bias.detach().double()
        return (torch.cat([weight, bias.repeat_interleave(self.conv.stride[0] ** 2)[None]]),)

    def fill(self, solution: Solution) -> None:
        fill(self.conv.weight, solution[0][:-1].view_as(self.conv.weight))


class ChannelwiseFit(RidgeFit):
    """Weights that act on every channel on its own: C small regressions at once.

    Features are (N, C·F, h, w), channel by channel; a solution is (C, F + 1, 1).
    """

    channels: int

    def rows(self, x: Tensor, pixels: Tensor | slice = ALL) -> Tensor:
        """(1, C·F, H, W) → (C, pixels, F), float64."""
        values = x[0].flatten(1)[:, pixels].double()
        return values.view(self.channels, -1, values.shape[1]).mT


class DepthwiseFit(ChannelwiseFit):
    """A depthwise convolution, or that of a `PDWConv2d`, with no pointwise one behind it."""

    picks = True

    def __init__(self, path: str, conv: nn.Conv2d, sites: Sequence[Site]):
        super().__init__([path], sites)
        self.conv, self.channels, self.intercept = conv, conv.in_channels, conv.bias is not None

    def features(self, x: Tensor, pixels: Tensor | None = None) -> Tensor:
        return unfolded(x[:, : self.channels], self.conv, pixels)

    def wanted(self, networks: Lockstep, batch: Batch, link: Link) -> Tensor:
        return super().wanted(networks, batch, link)[:, : self.channels]

    def start(self) -> Solution:
        return (affine(self.conv).T.unsqueeze(2),)

    def fill(self, solution: Solution) -> None:
        put(self.conv, solution[0].squeeze(2).T)


class NormFit(ChannelwiseFit):
    """Scale and shift of a normalization; running statistics become those of what comes in now."""

    intercept = True

    def __init__(self, path: str, norm: nn.Module, channels: int, sites: Sequence[Site]):
        super().__init__([path], sites)
        self.norm, self.channels = norm, channels
        self._inputs: list[tuple[Tensor, Tensor, int]] = []

    def features(self, x: Tensor, pixels: Tensor | None = None) -> Tensor:
        if isinstance(self.norm, nn.modules.batchnorm._BatchNorm):
            values = x.double()
            count = x.numel() // x.shape[1]
            self._inputs.append((values.sum((0, 2, 3)), values.square().sum((0, 2, 3)), count))
        return self.norm(x)  # type: ignore[no-any-return]

    def start(self) -> Solution:
        """No change: features are the normalization's outputs."""
        one = torch.ones(self.channels, 1, 1, dtype=torch.float64, device=self.norm.weight.device)  # type: ignore[arg-type]
        return (torch.cat([one, torch.zeros_like(one)], dim=1),)

    def update(self, last: bool) -> Gain | None:
        self._best = None
        gain = super().update(last)
        self._inputs = []
        return gain

    @property
    def rounds(self) -> int:
        return 1

    def fill(self, solution: Solution) -> None:
        norm = self.norm
        assert isinstance(norm.weight, Tensor) and isinstance(norm.bias, Tensor)
        scale, shift = solution[0][:, :, 0].unbind(1)
        weight, bias = norm.weight.detach().double(), norm.bias.detach().double()
        weight, bias = scale * weight, scale * bias + shift
        if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.running_mean is not None and self._inputs:
            assert norm.running_var is not None
            total = sum(count for *_, count in self._inputs)
            mean = torch.stack([sums for sums, *_ in self._inputs]).sum(0) / total
            variance = torch.stack([squares for _, squares, _ in self._inputs]).sum(0) / total - mean.square()
            variance = variance.clamp_min(0) * (total / max(1, total - 1))
            old = (norm.running_var.double() + norm.eps).sqrt()
            bias = bias + weight * (mean - norm.running_mean.double()) / old
            weight = weight * (variance + norm.eps).sqrt() / old
            fill(norm.running_mean, mean)
            fill(norm.running_var, variance)
        fill(norm.weight, weight)
        fill(norm.bias, bias)


class ProductFit(Fit):
    """A `PConv2d` and the pointwise convolution behind it: the best kernel of its rank, then the best mix.

    A solution is the kernel (c, c·k·k) and the mix (C + 1, O); features are the unfolded convolved channels, then the
    untouched ones. A bias of the partial convolution stays as it is.
    """

    picks = True

    def __init__(self, paths: Sequence[str], spatial: PConv2d, pointwise: nn.Conv2d, sites: Sequence[Site]):
        super().__init__(paths, sites)
        self.spatial, self.pointwise = spatial, pointwise
        self._intercept = pointwise.bias is not None

    def features(self, x: Tensor, pixels: Tensor | None = None) -> Tensor:
        c = self.spatial.convolved
        rest = x[:, c:] if pixels is None else x[:, c:].flatten(2)[..., pixels, None]
        return torch.cat([unfolded(x[:, :c], self.spatial.conv, pixels), rest], dim=1)

    def start(self) -> Solution:
        return self.spatial.conv.weight.detach().double().flatten(1), affine(self.pointwise)

    def linear(self, solution: Solution) -> Tensor:
        kernel, mix = solution
        return self._reach(kernel).T @ mix

    def candidates(self) -> Iterator[Candidate]:
        for strength in STRENGTHS:
            yield partial(self._mixed, strength=strength)
        for strength in STRENGTHS:
            yield partial(self._jointly, strength=strength)

    def _mixed(self, moments: Moments, strength: float) -> Solution:
        kernel, mix = self.start()
        return kernel, ridge(moments.through(self._reach(kernel)), mix, strength, intercept=self._intercept)

    def _jointly(self, moments: Moments, strength: float) -> Solution:
        start = self.start()
        kernel, prior = start[0].clone(), self.linear(start)
        found = reduced_rank(moments, prior, kernel.shape[1], len(kernel), strength, intercept=self._intercept)
        norms = found.norm(dim=1, keepdim=True)
        found = (found / norms)[torch.isfinite(1 / norms[:, 0]) & torch.isfinite(norms[:, 0])]
        size = float(kernel.norm()) / len(kernel) ** 0.5  # as before
        kernel[: len(found)] = found * (size or 1.0)
        reach = self._reach(kernel)
        mix = nearest(reach, ridge(moments, prior, strength, intercept=self._intercept))
        return kernel, ridge(moments.through(reach), mix, strength, intercept=self._intercept)

    def _reach(self, kernel: Tensor) -> Tensor:
        """(C + 1, F + 1): what the partial convolution makes of the raw features."""
        rest = self.spatial.channels - len(kernel) + 1
        identity = torch.eye(rest, dtype=kernel.dtype, device=kernel.device)
        reach: Tensor = torch.block_diag(kernel, identity)  # type: ignore[no-untyped-call]
        if self.spatial.conv.bias is not None:
            reach[: len(kernel), -1] = self.spatial.conv.bias.detach()
        return reach

    def fill(self, solution: Solution) -> None:
        kernel, mix = solution
        fill(self.spatial.conv.weight, kernel.view_as(self.spatial.conv.weight))
        put(self.pointwise, mix)


def kernel_of(module: nn.Module) -> nn.Conv2d | None:
    """The convolution in a module that is one, or a partial one."""
    conv = module.conv if isinstance(module, PartialConv2d) else module
    return conv if isinstance(conv, nn.Conv2d) else None


def unfolded(x: Tensor, conv: nn.Conv2d, pixels: Tensor | None = None) -> Tensor:
    """(N, C, H, W) → (N, C·k·k, h, w): what a convolution's kernel sees at each of its output pixels.

    Of some pixels alone, given by their numbers in rows of w, (N, C·k·k, pixels, 1).
    """
    if conv.kernel_size == (1, 1) and conv.stride == (1, 1) and conv.padding in ((0, 0), "same", "valid"):
        return x if pixels is None else x.flatten(2)[..., pixels, None]
    padding = conv._reversed_padding_repeated_twice
    x = F.pad(x, padding) if conv.padding_mode == "zeros" else F.pad(x, padding, mode=conv.padding_mode)
    spans = [d * (k - 1) + 1 for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
    size = [(n - span) // s + 1 for n, span, s in zip(x.shape[2:], spans, conv.stride, strict=True)]
    if pixels is None:
        columns = F.unfold(x, conv.kernel_size, conv.dilation, 0, conv.stride)
        return columns.view(len(x), -1, *size)
    starts = pixels // size[1] * conv.stride[0], pixels % size[1] * conv.stride[1]
    taps = (torch.arange(k, device=x.device) * d for k, d in zip(conv.kernel_size, conv.dilation, strict=True))
    rows, places = (start + tap[:, None] for start, tap in zip(starts, taps, strict=True))
    return x[:, :, rows[:, None], places[None]].flatten(1, 3)[..., None]


def affine(conv: nn.Conv2d | nn.Linear) -> Tensor:
    """Kernel (O, I, k, k) and bias (O,) as the map (I·k·k + 1, O), float64."""
    weight = conv.weight.detach().double().flatten(1)
    bias = weight.new_zeros(len(weight)) if conv.bias is None else conv.bias.detach().double()
    return torch.cat([weight, bias[:, None]], dim=1).T


def put(conv: nn.Conv2d | nn.Linear, solution: Tensor) -> None:
    """Fill a convolution from such a map."""
    fill(conv.weight, solution[:-1].T.reshape(conv.weight.shape))
    if conv.bias is not None:
        fill(conv.bias, solution[-1])
