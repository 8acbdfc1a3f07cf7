"""A module in one short line."""

from __future__ import annotations

from fractions import Fraction

from torch import nn
from torch.nn.modules.conv import _ConvNd

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
