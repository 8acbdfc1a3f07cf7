"""The paper's two layers. Bundles carry a copy of this source, so it needs nothing but torch."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
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
