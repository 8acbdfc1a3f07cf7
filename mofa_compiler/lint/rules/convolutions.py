"""Rules 2xx: convolutions that cost more than they need to."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, Literal

from ...analysis.layers import Layer
from ...analysis.network import Network
from ...base.option_types import convolved_channels
from ...rewriting.pass_api import Match, Pass
from .matching import PassRule, installed


@dataclass(frozen=True)
class SeparableConvolution(PassRule):
    """A depthwise convolution that a partial one could replace.

    ## What it does
    Finds stride-1 depthwise convolutions over all channels, with or without a pointwise one behind them.

    ## Why is this bad?
    A depthwise convolution reads and writes every channel and does next to nothing with it: memory, not arithmetic, is
    what it takes. A partial convolution works on a portion of the channels and leaves the rest where they are; the
    pointwise convolution behind it mixes them all (MOFA, section 3.2). Whether it is faster depends on the engine:
    split and concatenate cost time, too. `mofa rewrite --engine` measures that.

    ## Example
    ```python
    nn.Sequential(nn.Conv2d(64, 64, 3, padding=1, groups=64), nn.Conv2d(64, 64, 1))
    ```

    ## Use instead
    ```python
    nn.Sequential(PConv2d(64, 16), nn.Conv2d(64, 64, 1))
    ```

    ## Fix safety
    Unsafe: pass `sepconv-to-pconv` inherits the weights in closed form, and the output changes. Calibrate
    (`mofa rewrite --calibrate`) or train (`mofa recover`) afterwards.
    """

    code: ClassVar[str] = "MOFA201"
    name: ClassVar[str] = "separable-convolution"
    fixes: ClassVar[Literal["exact", "approximate"] | None] = "approximate"
    kinds: ClassVar[tuple[str, ...]] = ("depthwise",)

    portion: Fraction = Fraction(1, 4)

    def fix(self) -> Pass | None:
        return installed("sepconv-to-pconv", portion=self.portion, kinds=self.kinds)

    def message(self, layer: Layer, found: Match, network: Network) -> str | None:
        part, _ = convolved_channels(layer.channels, self.portion)
        return f"depthwise convolution of all {layer.channels} channels, where {part} could do"


@dataclass(frozen=True)
class DenseConvolution(SeparableConvolution):
    """A dense k×k convolution in the body of the network.

    ## What it does
    Finds stride-1 convolutions with a kernel larger than 1×1 that mix all channels; never the first and the last one
    of the network.

    ## Why is this bad?
    It multiplies every input channel with every output channel at every tap of the kernel. A partial convolution on a
    portion of the channels and a pointwise one for all of them do the same two jobs, in space and across channels, at
    a fraction of the MACs.

    ## Example
    ```python
    nn.Conv2d(64, 64, 3, padding=1)  # 36,864 weights
    ```

    ## Use instead
    ```python
    nn.Sequential(PConv2d(64, 16), nn.Conv2d(64, 64, 1))  # 2,304 + 4,096 weights
    ```

    ## Fix safety
    Unsafe: pass `sepconv-to-pconv` factors the weights in closed form, and the output changes. Calibrate or train
    afterwards.
    """

    code: ClassVar[str] = "MOFA202"
    name: ClassVar[str] = "dense-convolution"
    kinds: ClassVar[tuple[str, ...]] = ("dense",)

    def message(self, layer: Layer, found: Match, network: Network) -> str | None:
        part, _ = convolved_channels(layer.channels, self.portion)
        kernel = "x".join(map(str, layer.module.kernel_size))  # type: ignore[arg-type]
        return (
            f"dense {kernel} convolution of {layer.channels} to {layer.output_shape[1]} channels in the body, where "
            f"one of {part} channels and a pointwise one could do"
        )


@dataclass(frozen=True)
class WidePConv(PassRule):
    """A partial convolution that is wide enough to be depthwise.

    ## What it does
    Finds `PConv2d` that convolve at least `pdwconv` channels (threshold d·p, 32 by default).

    ## Why is this bad?
    A partial convolution mixes the channels that it convolves with one another: cost grows with the square of their
    number, and the pointwise convolution behind it mixes them anyway (MOFA, section 3.6).

    ## Example
    ```python
    PConv2d(256, 64)
    ```

    ## Use instead
    ```python
    PDWConv2d(256, 64)
    ```

    ## Fix safety
    Unsafe: what pass `pconv-to-pdwconv` keeps of the mixing goes into the pointwise convolution behind it, and the
    output changes, unless the kernels were depthwise already.
    """

    code: ClassVar[str] = "MOFA203"
    name: ClassVar[str] = "wide-pconv"
    fixes: ClassVar[Literal["exact", "approximate"] | None] = "approximate"

    pdwconv: int = 32

    def fix(self) -> Pass | None:
        return installed("pconv-to-pdwconv", threshold=self.pdwconv)

    def message(self, layer: Layer, found: Match, network: Network) -> str | None:
        convolved = layer.module.convolved
        return f"partial convolution that mixes {convolved} channels; from {self.pdwconv} on a depthwise one is cheaper"


@dataclass(frozen=True)
class LargeKernel(PassRule):
    """A kernel that is larger than its level needs.

    ## What it does
    Finds kernels larger than `kernel` (3 by default) below the full resolution. Off by default: many networks are
    built so on purpose.

    ## Why is this bad?
    With every level down, one tap covers twice as many pixels of the image. A 5×5 kernel costs 2.8 times as much as a
    3×3 one, for which engines have their fastest code.

    ## Example
    ```python
    nn.Conv2d(64, 64, 5, padding=2, groups=64)
    ```

    ## Use instead
    ```python
    nn.Conv2d(64, 64, 3, padding=1, groups=64)
    ```

    ## Fix safety
    Unsafe: pass `shrink-kernels` takes the best smaller kernel, and the output changes.
    """

    code: ClassVar[str] = "MOFA204"
    name: ClassVar[str] = "large-kernel"
    default: ClassVar[Literal["on", "off", "engine"]] = "off"
    fixes: ClassVar[Literal["exact", "approximate"] | None] = "approximate"

    kernel: int = 3

    def fix(self) -> Pass | None:
        return installed("shrink-kernels", size=self.kernel)

    def message(self, layer: Layer, found: Match, network: Network) -> str | None:
        full = max((one.input_shape[-2] * one.input_shape[-1] for one in network.layers.values()), default=0)
        height, width = layer.input_shape[-2:]
        if height * width >= full:
            return None
        size = "x".join(map(str, layer.module.kernel_size))  # type: ignore[arg-type]
        return (
            f"{size} kernel at {height}x{width}, below the full resolution, where {self.kernel}x{self.kernel} could do"
        )


@dataclass(frozen=True)
class DepthwiseBeforeContraction(PassRule):
    """A depthwise convolution of channels that the next layer drops.

    ## What it does
    Finds depthwise convolutions followed by a pointwise one that makes them `contraction` times fewer (2 by default).

    ## Why is this bad?
    All channels are convolved before most of them are dropped. The other way round, the spatial convolution sees only
    those that remain.

    ## Example
    ```python
    nn.Sequential(nn.Conv2d(256, 256, 5, padding=2, groups=256), nn.Conv2d(256, 64, 1))
    ```

    ## Use instead
    ```python
    nn.Sequential(nn.Conv2d(256, 64, 1), nn.Conv2d(64, 64, 5, padding=2, groups=64))
    ```

    ## Fix safety
    Unsafe: pass `pointwise-first` fits both in closed form, and the output changes.
    """

    code: ClassVar[str] = "MOFA205"
    name: ClassVar[str] = "depthwise-before-contraction"
    fixes: ClassVar[Literal["exact", "approximate"] | None] = "approximate"

    contraction: float = 2.0

    def fix(self) -> Pass | None:
        return installed("pointwise-first", contraction=self.contraction)

    def message(self, layer: Layer, found: Match, network: Network) -> str | None:
        behind = layer.follower.module if layer.follower else None
        left = getattr(behind, "out_channels", 0)
        return f"convolves {layer.channels} channels, of which the pointwise convolution behind it makes {left}"
