"""Rules 3xx: changes of resolution that are coupled with a convolution."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, Literal

from torch import nn

from ...analysis.layers import Layer
from ...analysis.network import Network
from ...rewriting.pass_api import Match, Pass
from .matching import PassRule, installed


@dataclass(frozen=True)
class _Upsampling(PassRule):
    """Rules on what pass `decouple-upsampling` matches."""

    fixes: ClassVar[Literal["exact", "approximate"] | None] = "approximate"

    portion: Fraction = Fraction(1, 4)

    def fix(self) -> Pass | None:
        return installed("decouple-upsampling", portion=self.portion)


@dataclass(frozen=True)
class TransposedConvolution(_Upsampling):
    """A transposed convolution that upsamples.

    ## What it does
    Finds transposed convolutions that enlarge by a whole factor.

    ## Why is this bad?
    It mixes channels and enlarges in one dense layer, leaves checkerboard patterns where kernel and stride do not fit,
    and several engines for phones have no fast code for it. A convolution at the low resolution and an interpolation
    behind it cost less (MOFA, section 3.5).

    ## Example
    ```python
    nn.ConvTranspose2d(64, 32, 2, stride=2)
    ```

    ## Use instead
    ```python
    nn.Sequential(PConv2d(64, 16), nn.Conv2d(64, 32, 1), nn.Upsample(scale_factor=2, mode="bilinear"))
    ```

    ## Fix safety
    Unsafe: pass `decouple-upsampling` fits the convolution in closed form, and the output changes.
    """

    code: ClassVar[str] = "MOFA301"
    name: ClassVar[str] = "transposed-convolution"

    def message(self, layer: Layer, found: Match, network: Network) -> str | None:
        if not isinstance(layer.module, nn.ConvTranspose2d):
            return None
        return "transposed convolution couples upsampling with mixing channels"


@dataclass(frozen=True)
class ConvolutionPixelShuffle(_Upsampling):
    """A convolution whose output a pixel shuffle takes apart.

    ## What it does
    Finds convolutions that make r² times the channels for a pixel shuffle behind them.

    ## Why is this bad?
    The convolution computes r² times the channels, and the shuffle writes every value a second time. A convolution
    without the factor and an interpolation behind it cost a fraction (MOFA, section 3.5). Where the engine has a fast
    shuffle or a fast transposed convolution, it may yet be the better choice: `mofa rewrite --engine` measures that.

    ## Example
    ```python
    nn.Sequential(nn.Conv2d(64, 128, 1), nn.PixelShuffle(2))
    ```

    ## Use instead
    ```python
    nn.Sequential(PConv2d(64, 16), nn.Conv2d(64, 32, 1), nn.Upsample(scale_factor=2, mode="bilinear"))
    ```

    ## Fix safety
    Unsafe: pass `decouple-upsampling` fits the convolution in closed form, and the output changes.
    """

    code: ClassVar[str] = "MOFA302"
    name: ClassVar[str] = "convolution-pixel-shuffle"

    def message(self, layer: Layer, found: Match, network: Network) -> str | None:
        step = layer.follower
        if isinstance(layer.module, nn.ConvTranspose2d) or step is None or step.kind != "shuffle":
            return None
        made = layer.output_shape[1]
        return f"makes {made} channels for a pixel shuffle, which leaves {made // (step.factor or 1) ** 2} of them"


@dataclass(frozen=True)
class UpsampleBeforeConvolution(_Upsampling):
    """A convolution at a resolution that an upsampling just made.

    ## What it does
    Finds convolutions that read what an interpolation enlarged.

    ## Why is this bad?
    Between interpolated pixels there is nothing new to see: the convolution does r² times the work that it would do
    before the interpolation.

    ## Example
    ```python
    nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(64, 32, 1))
    ```

    ## Use instead
    ```python
    nn.Sequential(nn.Conv2d(64, 32, 1), nn.Upsample(scale_factor=2))
    ```

    ## Fix safety
    Safe for a 1×1 convolution, which commutes with an interpolation; unsafe for a larger kernel, for which pass
    `decouple-upsampling` fits one at the low resolution.
    """

    code: ClassVar[str] = "MOFA303"
    name: ClassVar[str] = "upsample-before-convolution"

    def message(self, layer: Layer, found: Match, network: Network) -> str | None:
        behind = layer.follower
        if isinstance(layer.module, nn.ConvTranspose2d) or (behind is not None and behind.kind == "shuffle"):
            return None
        height, width = layer.input_shape[-2:]
        return f"convolves at {height}x{width} what an upsampling just enlarged"


@dataclass(frozen=True)
class StridedConvolution(PassRule):
    """A strided convolution with a kernel.

    ## What it does
    Finds depthwise and dense convolutions larger than 1×1 with a stride. Off by default: what it saves is small next
    to what it costs a trained network.

    ## Why is this bad?
    It couples downsampling with the convolution. An average pooling and a partial convolution at the low resolution
    have fewer parameters (the paper's authors did this to NAFNet, but not to PMRID).

    ## Example
    ```python
    nn.Conv2d(32, 64, 2, stride=2)
    ```

    ## Use instead
    ```python
    nn.Sequential(nn.AvgPool2d(2), PConv2d(32, 8), nn.Conv2d(32, 64, 1))
    ```

    ## Fix safety
    Unsafe: pass `decouple-downsampling` fits the convolution in closed form, and the output changes.
    """

    code: ClassVar[str] = "MOFA304"
    name: ClassVar[str] = "strided-convolution"
    default: ClassVar[Literal["on", "off", "engine"]] = "off"
    fixes: ClassVar[Literal["exact", "approximate"] | None] = "approximate"

    portion: Fraction = Fraction(1, 4)

    def fix(self) -> Pass | None:
        return installed("decouple-downsampling", portion=self.portion)

    def message(self, layer: Layer, found: Match, network: Network) -> str | None:
        kind = "depthwise" if layer.is_depthwise else "dense"
        return f"{kind} convolution with stride {layer.stride[0]} couples downsampling with the convolution"
