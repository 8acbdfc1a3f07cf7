"""A convolution with its neighbours, as passes see it, and a module in one short line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

from torch import fx, nn
from torch.nn.modules.conv import _ConvNd

from ...graph.plain_layers import is_plain
from ...nn.branching import Branches, Function
from ...nn.partial_conv import FusedPConv2d, PartialConv2d


def signature(module: nn.Module, function: str | None = None) -> str:
    """A module in one short line: `Conv2d(64→128, k3, s2)`, `PConv2d(64, k5, portion=1/4)`; several joined by ` + `.

    `function` is the name to write instead of the class's, for a convolution that is no module.
    """
    if isinstance(module, nn.Sequential):
        return " + ".join(signature(child) for child in module)
    if isinstance(module, Branches):
        return f"{type(module).__name__}({' | '.join(signature(child) for child in module.children())})"
    if isinstance(module, Function):
        return module.extra_repr()
    if isinstance(module, FusedPConv2d):
        relu = " + ReLU" if module.relu else ""
        return f"FusedPConv2d({signature(module.partial)} + {signature(module.pointwise)}{relu})"
    if isinstance(module, PartialConv2d):
        portion = Fraction(module.convolved, module.channels)
        in_place = ", in place" if module.in_place else ""
        return f"{type(module).__name__}({module.channels}, {_geometry(module.conv)}, portion={portion}{in_place})"
    if isinstance(module, _ConvNd):
        depthwise = 1 < module.groups == module.in_channels == module.out_channels
        channels = str(module.in_channels) if depthwise else f"{module.in_channels}→{module.out_channels}"
        groups = "depthwise" if depthwise else f"groups={module.groups}" if module.groups > 1 else ""
        name = function or type(module).__name__
        return f"{name}({', '.join(filter(None, (channels, _geometry(module), groups)))})"
    if isinstance(module, nn.Upsample):
        return f"Upsample({_enlargement(module)}, {module.mode})"
    if isinstance(module, nn.AvgPool2d):
        return f"AvgPool2d({module.kernel_size})"
    return repr(module)


def _enlargement(upsample: nn.Upsample) -> str:
    """`x2`, `x1.5`, `x2x1` or `to 64x48`."""
    if upsample.size is not None:
        size = upsample.size if isinstance(upsample.size, tuple) else (upsample.size, upsample.size)
        return "to " + "x".join(map(str, size))
    factor = upsample.scale_factor
    factors = factor if isinstance(factor, tuple) else (factor or 1.0,)
    return "x" + "x".join(f"{value:g}" for value in factors)


def _geometry(conv: _ConvNd) -> str:
    def one(prefix: str, values: tuple[int, ...], default: int | None = None) -> str:
        if len(set(values)) > 1:
            return prefix + "x".join(map(str, values))
        return "" if values[0] == default else f"{prefix}{values[0]}"

    parts = (
        one("k", conv.kernel_size),
        one("s", conv.stride, 1),
        one("d", conv.dilation, 1),
        "bias" if conv.bias is not None else "",
    )
    return ", ".join(filter(None, parts))


if TYPE_CHECKING:
    from ..anatomy import Stage


@dataclass(frozen=True)
class Step:
    """One operation next to a layer, on a path that nothing else reads."""

    node: str
    operation: str
    """Name of the module's class or of the function"""
    kind: str
    """conv, norm, activation, identity, resize, shuffle or other"""
    path: str | None
    module: nn.Module | None
    factor: int | None = None
    """Enlargement of a resize by a factor or of a pixel shuffle, where it is whole and the same in both directions"""
    free: bool = True
    """Whether its weights may be adjusted for a neighbour: called once, plain, nothing shared, no input or output"""
    mode: str | None = None
    """Interpolation of a resize, `bilinear` with aligned corners as `bilinear, aligned`"""
    to_size: int | None = None
    """Enlargement of a resize to a size, as the whole number that is nearest to it at the example size"""
    enlarges: bool = False
    """Whether a resize makes the example larger in both directions"""
    joins: tuple[str, ...] = ()
    """Kinds of the operations whose results a concatenation joins"""
    measured: bool = False
    """Whether the program also asks for the size of what lies between this step and the one that is nearer to the
    layer: then that size must stay"""

    @property
    def is_pointwise(self) -> bool:
        return self.kind == "conv" and self.module is not None and is_pointwise(self.module)


@dataclass(frozen=True)
class Site:
    """One call of a layer, and its neighbours there."""

    node: fx.Node
    behind: tuple[Step, ...] = ()
    """What follows, one after the other, up to the next convolution, as long as nothing else reads in between"""
    before: tuple[Step, ...] = ()
    """What leads here, nearest first, back to the previous convolution, as long as nothing else reads in between"""
    fed_by: Step | None = None
    """What it reads, whoever else reads that too; None where that is an input or a parameter"""


@dataclass(frozen=True)
class Layer:
    """A convolution module, all the places it is called from, and its neighbours.

    Shapes are those of the first call on the example input; MACs are summed over the calls.
    """

    path: str
    module: nn.Module
    sites: tuple[Site, ...]
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    parameters: int
    macs: int
    vanilla: int
    """MACs by the paper's estimate: as if it were a vanilla convolution, together with its pointwise one"""
    stage: Stage | None
    in_transition: bool
    is_input: bool = False
    is_output: bool = False
    source: Layer | None = None
    """The convolution whose output this layer reads directly and alone"""
    ideal: nn.Conv2d | None = None
    """The depthwise convolution over all channels that a partial one stands for, where it came from one"""
    altered: str = ""
    """Why it does not compute what its class says (hooks, another forward); empty for a plain one"""
    tied: bool = False
    """Whether another module holds one of its parameters"""
    function: str | None = None
    """Name of the function, where it is no module but a call of `F.conv2d` in the `forward` of the module at `path`;
    `module` then is a stand-in of the same geometry without weights"""

    @property
    def hooked(self) -> bool:
        """Whether it has hooks, or does not compute what its class says for another reason."""
        return bool(self.altered)

    @property
    def nodes(self) -> tuple[fx.Node, ...]:
        """Its calls, in execution order."""
        return tuple(site.node for site in self.sites)

    @property
    def behind(self) -> tuple[Step, ...]:
        """`Site.behind` of a layer that is called once; nothing for another one, whose neighbours change by call."""
        return self.sites[0].behind if len(self.sites) == 1 else ()

    @property
    def before(self) -> tuple[Step, ...]:
        """`Site.before` of a layer that is called once."""
        return self.sites[0].before if len(self.sites) == 1 else ()

    @property
    def follower(self) -> Step | None:
        """What does something next behind it, if it alone reads this layer, called once."""
        return nearest(self.behind)

    @property
    def feeder(self) -> Step | None:
        """What did something last before it, if this layer alone reads that, called once."""
        return nearest(self.before)

    @property
    def channels(self) -> int:
        return self.input_shape[1]

    @property
    def is_depthwise(self) -> bool:
        m = self.module
        if not is_plain(m, nn.Conv2d) or self.is_1x1:
            return False
        return 1 < m.groups == m.in_channels == m.out_channels

    @property
    def is_dense(self) -> bool:
        m = self.module
        return is_plain(m, nn.Conv2d) and m.groups == 1 and not self.is_1x1

    @property
    def is_1x1(self) -> bool:
        return getattr(self.module, "kernel_size", None) == (1, 1)

    @property
    def is_batched(self) -> bool:
        """Whether every call reads (N, C, H, W); a convolution takes (C, H, W) too, where channels come first."""
        return all(node.meta["val"].dim() == 4 for node in self.nodes)

    @property
    def stride(self) -> tuple[int, ...]:
        return getattr(self.module, "stride", (1, 1))

    @property
    def pointwise(self) -> Step | None:
        """The 1x1 convolution that alone reads this layer, directly or through norms and activations."""
        last = self.behind[-1] if self.behind else None
        between_is_pointwise = all(step.kind in ("norm", "activation", "identity") for step in self.behind[:-1])
        return last if last and last.is_pointwise and between_is_pointwise else None


def nearest(steps: Iterable[Step]) -> Step | None:
    """The first step that does something; `measured` where a size is asked for anywhere on the way."""
    measured = False
    for step in steps:
        measured |= step.measured
        if step.kind != "identity":
            return replace(step, measured=measured)
    return None


def is_pointwise(module: nn.Module) -> bool:
    """Whether a module is a plain 1x1 convolution that mixes all channels."""
    if not is_plain(module, nn.Conv2d) or module.groups > 1:
        return False
    return module.kernel_size == (1, 1) and module.stride == (1, 1)


def keeps_size(conv: nn.Conv2d) -> bool:
    """Whether a convolution's output is as large as its input, at every size."""
    if conv.stride != (1, 1):
        return False
    if isinstance(conv.padding, str):
        return conv.padding == "same"
    return all(2 * p == d * (k - 1) for k, p, d in zip(conv.kernel_size, conv.padding, conv.dilation, strict=True))
