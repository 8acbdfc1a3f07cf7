"""The paper's two layers, and what they are fused to. Bundles carry a copy of this source: it needs only torch."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PaddingMode: TypeAlias = Literal["zeros", "reflect", "replicate", "circular"]


class PartialConv2d(nn.Module):
    """Convolve the first `convolved` of `channels` channels at stride 1, pass the others through.

    Input and output: (N, `channels`, H, W). The padding keeps the size, so the kernel is odd or the padding uneven
    (`nn.Conv2d(padding="same")`). A bias is added to the convolved channels only.

    With `in_place` the convolved channels are written over those of the input, whose other channels then need not be
    copied: for a network in which nothing else reads the input. With gradients, and where torch compiles or exports,
    it makes a new tensor as it does without.
    """

    depthwise: bool

    def __init__(
        self,
        channels: int,
        convolved: int,
        kernel_size: int | tuple[int, int] = 3,
        *,
        dilation: int | tuple[int, int] = 1,
        padding_mode: PaddingMode = "zeros",
        bias: bool = False,
        in_place: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        if not 0 < convolved <= channels:
            raise ValueError(f"convolved={convolved} must lie between 1 and channels={channels}")
        self.channels = channels
        self.convolved = convolved
        self.in_place = in_place
        self.conv = nn.Conv2d(
            convolved,
            convolved,
            kernel_size,
            padding="same",
            dilation=dilation,
            groups=convolved if self.depthwise else 1,
            bias=bias,
            padding_mode=padding_mode,
            device=device,
            dtype=dtype,
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.convolved == self.channels:
            return self.conv(x)  # type: ignore[no-any-return]
        if self.in_place and not (torch.is_grad_enabled() or torch.compiler.is_compiling()):
            x[:, : self.convolved] = self.conv(x[:, : self.convolved])
            return x
        head, rest = torch.split(x, [self.convolved, self.channels - self.convolved], dim=1)
        return torch.cat([self.conv(head), rest], dim=1)

    def extra_repr(self) -> str:
        return f"{self.channels}, convolved={self.convolved}{', in_place=True' if self.in_place else ''}"


class PConv2d(PartialConv2d):
    """Partial convolution (Chen et al., "Run, Don't Walk", CVPR 2023): the convolved channels are mixed."""

    depthwise = False


class PDWConv2d(PartialConv2d):
    """Partial depthwise convolution (MOFA, Figure 5): each convolved channel has a kernel of its own."""

    depthwise = True


class FusedPConv2d(nn.Module):
    """A partial convolution, the pointwise convolution behind it, and a ReLU if there is one, in one kernel on CUDA.

    (N, `channels`, H, W) to (N, `out_channels`, H, W). The kernel is the operator `mofa::fused_pconv`, which `import
    mofa_compiler.kernels` registers (it needs Triton). Without it, with gradients or autocast, in float64 and on other
    devices torch's own operators compute the same.
    """

    def __init__(
        self,
        channels: int,
        convolved: int,
        out_channels: int,
        kernel_size: int | tuple[int, int] = 3,
        *,
        depthwise: bool = False,
        dilation: int | tuple[int, int] = 1,
        spatial_bias: bool = False,
        pointwise_bias: bool = True,
        relu: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.channels = channels
        self.convolved = convolved
        self.out_channels = out_channels
        self.kernel_size = kernel_size
        self.depthwise = depthwise
        self.dilation = dilation
        self.spatial_bias = spatial_bias
        self.pointwise_bias = pointwise_bias
        self.relu = relu
        kind = PDWConv2d if depthwise else PConv2d
        self.partial = kind(
            channels, convolved, kernel_size, dilation=dilation, bias=spatial_bias, device=device, dtype=dtype
        )
        self.pointwise = nn.Conv2d(channels, out_channels, 1, bias=pointwise_bias, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        spatial, pointwise = self.partial.conv, self.pointwise
        plain = not x.is_cuda or torch.is_grad_enabled() or torch.is_autocast_enabled("cuda")
        if plain or x.dtype == torch.float64 or not hasattr(torch.ops.mofa, "fused_pconv"):
            y: Tensor = pointwise(self.partial(x))
            return F.relu(y) if self.relu else y
        weights = (spatial.weight, spatial.bias, pointwise.weight, pointwise.bias)
        return torch.ops.mofa.fused_pconv(x, *weights, list(spatial.dilation), self.relu)  # type: ignore[no-any-return]
