"""Mix channels first, then convolve.

A separable convolution that contracts channels convolves all of them before it drops most. The other way round the
spatial convolution sees only those that remain (the order of Haase and Amthor's "blueprint separable convolutions",
CVPR 2020), and nothing is split or concatenated.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import nn

from mofa_compiler import weights
from mofa_compiler.analysis.layers import Layer, keeps_size
from mofa_compiler.analysis.network import Network
from mofa_compiler.rewriting import FROZEN, Match, Pass, Replacement, Skip


@dataclass(frozen=True, config=FROZEN)
class PointwiseFirst(Pass):
    """Replace depthwise + pointwise by pointwise + depthwise where the pointwise convolution contracts channels.

    Options:
        contraction: input channels ÷ output channels, at least.
        spatial: whether the depthwise one stays at all; without it, what was convolved is only mixed.
    """

    name: ClassVar[str] = "pointwise-first"
    offered: ClassVar[bool] = True

    contraction: Annotated[float, Field(gt=0)] = 2.0
    spatial: bool = True

    def alternatives(self, layer: Layer, network: Network, *, bounded: bool = False) -> Sequence[Pass]:
        return (self, replace(self, contraction=1e-9, spatial=False)) if bounded else (self,)

    def match(self, layer: Layer, network: Network) -> Match | Skip | None:
        conv, behind = layer.module, layer.follower
        if not layer.is_depthwise or layer.stride != (1, 1):
            return None
        assert isinstance(conv, nn.Conv2d)
        if behind is None or not behind.is_pointwise:
            return Skip("no-neighbour", "has no pointwise convolution directly behind it that only it feeds")
        assert isinstance(behind.module, nn.Conv2d)
        if not behind.free:
            return Skip("neighbour-held", "the pointwise convolution behind it is shared, hooked or the output's")
        if behind.measured:
            return Skip("size-asked", "the size of its output is asked for")
        if not keeps_size(conv):
            return Skip("padding", f"its padding {conv.padding} changes the size")
        channels, mixed = conv.in_channels, behind.module.out_channels
        if channels < self.contraction * mixed:
            reason = f"the pointwise convolution behind it makes {mixed} of {channels} channels"
            return Skip("threshold", reason)
        return Match()

    def build(self, layer: Layer, modules: Mapping[str, nn.Module]) -> Replacement:
        old, behind = modules[layer.path], layer.follower
        assert isinstance(old, nn.Conv2d) and behind is not None
        pointwise = modules[str(behind.path)]
        assert isinstance(pointwise, nn.Conv2d)
        mix, kernels = weights.mixed_first(old, pointwise, spatial=self.spatial)
        device, dtype = old.weight.device, old.weight.dtype
        first = nn.Conv2d(old.in_channels, pointwise.out_channels, 1, bias=not self.spatial, device=device, dtype=dtype)
        weights.fill(first.weight, mix[:, :, None, None])
        bias = weights.joint_bias(old, pointwise)
        body: OrderedDict[str, nn.Module] = OrderedDict(pointwise=first)
        last = first
        if self.spatial:
            channels = pointwise.out_channels
            last = nn.Conv2d(
                channels,
                channels,
                (old.kernel_size[0], old.kernel_size[1]),
                padding="same",
                dilation=(old.dilation[0], old.dilation[1]),
                groups=channels,
                padding_mode=old.padding_mode,
                device=device,
                dtype=dtype,
            )
            weights.fill(last.weight, kernels)
            body["depthwise"] = last
        assert last.bias is not None
        weights.fill(last.bias, bias)
        return Replacement(nn.Sequential(body), bypassed=(behind.node,))
