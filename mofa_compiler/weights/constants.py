"""Constant propagation, channel by channel: which channels of which values are the same number whatever the input.

A fact is a vector (C,) in float64 with NaN for every channel that is not known to be constant. Inputs are taken for
finite: a product with zero is zero.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm

from ..analysis.layers import writes_in_place
from ..analysis.layers.neighbours import ACTIVATIONS, is_activation
from ..graph.macs import function_name
from ..graph.plain_layers import is_torchs
from .linear import passes_shift

Facts = Mapping[fx.Node, Tensor]

_ARITHMETIC: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": operator.add,
    "iadd": operator.add,
    "sub": operator.sub,
    "isub": operator.sub,
    "mul": operator.mul,
    "imul": operator.mul,
    "truediv": operator.truediv,
    "itruediv": operator.truediv,
    "div": operator.truediv,
}
_PASSING = frozenset(
    [
        *("contiguous", "clone", "detach", "to", "float", "double", "interpolate", "upsample"),
        *("max_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d"),
    ]
)
"""What makes of a constant image the same constant one"""
_PASSING_MODULES = (
    nn.Identity,
    nn.Upsample,
    nn.MaxPool2d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
    nn.ReflectionPad2d,
    nn.ReplicationPad2d,
)
_MEANS = frozenset(["mean", "amax", "amin"])


def constants(
    graph: fx.Graph, modules: Mapping[str, nn.Module], tensor: Callable[[str], Any], seen: Facts | None = None
) -> dict[fx.Node, Tensor]:
    """What is constant in images (N, C, H, W), of which a channel at least is; nothing where weights have no values.

    Args:
        graph: whose nodes have their `meta["val"]`.
        modules: that it calls, in eval mode where their mode matters.
        tensor: a parameter or buffer by its path.
        seen: what is constant besides, whatever the weights say.
    """
    found = _Constants(modules, tensor)
    for node in graph.nodes:
        fact = found.visit(node)
        told = None if seen is None else seen.get(node)
        if told is not None:
            fact = told if fact is None else torch.where(told.isnan(), fact, told)
        others = len(node.users) > 1 and any(writes_in_place(u, modules) and u.args[0] is node for u in node.users)
        if fact is not None and not fact.isnan().all() and not others:
            found.facts[node] = fact
    return {node: fact for node, fact in found.facts.items() if node.op != "get_attr"}


class _Constants:
    def __init__(self, modules: Mapping[str, nn.Module], tensor: Callable[[str], Any]):
        self.modules, self.tensor = modules, tensor
        self.facts: dict[fx.Node, Tensor] = {}

    def visit(self, node: fx.Node) -> Tensor | None:
        width = _width(node)
        if width is None or node.op in ("placeholder", "output"):
            return None
        with torch.no_grad():
            if node.op == "get_attr":
                fact = _of_tensor(self.tensor(str(node.target)))
            elif node.op == "call_module":
                fact = self._module(self.modules[str(node.target)], node)
            else:
                fact = self._function(node)
        return fact if fact is None or len(fact) == width else None

    def _of(self, node: Any) -> Tensor | None:
        """What is known of an image, NaN where nothing is; None for what is no image."""
        if not isinstance(node, fx.Node) or (width := _width(node)) is None:
            return None
        return self.facts.get(node, torch.full((width,), torch.nan, dtype=torch.float64))

    def _module(self, module: nn.Module, node: fx.Node) -> Tensor | None:
        source = self._of(node.args[0]) if len(node.args) == 1 else None
        if source is None or not is_torchs(module, nn.Module) or any(t.is_meta for t in module.parameters()):
            return None
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            return _convolved(module, source)
        if isinstance(module, (_BatchNorm, _InstanceNorm, nn.GroupNorm)):
            return _normalized(module, source)
        if is_activation(module):
            copied = copy.deepcopy(module).double().cpu().eval()
            return _apart(source, lambda x: copied(x))
        if isinstance(module, nn.ZeroPad2d):
            return torch.where(source == 0, source, torch.nan)
        if isinstance(module, nn.AvgPool2d):
            return source if module.padding in (0, (0, 0)) else torch.where(source == 0, source, torch.nan)
        if isinstance(module, nn.PixelShuffle):
            return _shuffled(source, module.upscale_factor)
        if isinstance(module, _DropoutNd):
            return torch.where(source == 0, source, torch.nan) if module.training else source
        return source if isinstance(module, _PASSING_MODULES) else None

    def _function(self, node: fx.Node) -> Tensor | None:
        name = function_name(node)
        if name in _ARITHMETIC and len(node.args) == 2 and not node.kwargs:
            return self._joined(node, name)
        if name in ("cat", "concat", "concatenate"):
            return self._beside(node)
        if name == "getitem":
            return self._part(node)
        source = self._of(node.args[0]) if node.args else None
        if source is None or len(node.all_input_nodes) != 1:
            return None
        if name in ACTIVATIONS:
            rest, kwargs = node.args[1:], {key: v for key, v in node.kwargs.items() if key != "inplace"}
            method = node.op == "call_method"
            return _apart(
                source,
                lambda x: getattr(x, name)(*rest, **kwargs) if method else node.target(x, *rest, **kwargs),  # type: ignore[operator]
            )
        if name in _MEANS:
            dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
            return source if dims in ((2, 3), [2, 3], (-2, -1), [-2, -1], (-1, -2), [-1, -2]) else None
        if name == "pixel_shuffle":
            return _shuffled(source, node.args[1]) if len(node.args) > 1 else None
        if name in ("dropout", "dropout2d"):  # whose mode is another argument
            return torch.where(source == 0, source, torch.nan)
        return source if name in _PASSING else None

    def _joined(self, node: fx.Node, name: str) -> Tensor | None:
        width = _width(node)
        assert width is not None
        operands = []
        for arg in node.args:
            value = arg.meta.get("val") if isinstance(arg, fx.Node) else arg
            if isinstance(value, (bool, int, float)):
                plain = not isinstance(arg, fx.Node)
                operands.append(torch.tensor(float(value) if plain else torch.nan, dtype=torch.float64))
                continue
            known = self._of(arg)
            if known is None and isinstance(arg, fx.Node) and arg.op == "get_attr":
                held = self.tensor(str(arg.target))
                if isinstance(held, Tensor) and held.numel() == 1 and not held.is_meta:
                    known = held.detach().double().cpu().flatten()
            operands.append(torch.tensor(torch.nan, dtype=torch.float64) if known is None else known)
        one, other = operands
        result = _ARITHMETIC[name](one, other).expand(width).clone()
        if "mul" in name:
            result[((one == 0) | (other == 0)).expand(width)] = 0
        return torch.where(result.isfinite(), result, torch.nan)

    def _beside(self, node: fx.Node) -> Tensor | None:
        parts = node.args[0] if node.args else node.kwargs.get("tensors")
        dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
        if not isinstance(parts, (list, tuple)) or dim not in (1, -3):
            return None
        facts = [self._of(part) for part in parts]
        known = [fact for fact in facts if fact is not None]
        return torch.cat(known) if len(known) == len(facts) else None

    def _part(self, node: fx.Node) -> Tensor | None:
        """A slice of channels, or one of the parts that a value was split into."""
        source, index = node.args
        if not isinstance(source, fx.Node):
            return None
        parts = source.meta.get("val")
        if isinstance(parts, (tuple, list)) and isinstance(index, int):
            whole = self._of(source.args[0]) if source.args else None
            dim = source.args[2] if len(source.args) > 2 else source.kwargs.get("dim", 0)
            if whole is None or dim not in (1, -3) or function_name(source) not in ("chunk", "split", "tensor_split"):
                return None
            sizes = [part.shape[1] for part in parts]
            return torch.split(whole, sizes)[index] if sum(sizes) == len(whole) else None
        whole = self._of(source)
        if whole is None or not isinstance(index, tuple) or not all(isinstance(one, slice) for one in index):
            return None
        channels = index[1] if len(index) > 1 else slice(None)
        assert isinstance(channels, slice)
        bounds = (channels.start, channels.stop, channels.step)
        return whole[channels] if all(bound is None or isinstance(bound, int) for bound in bounds) else None


def _width(node: fx.Node) -> int | None:
    """How many channels an image has; None for what is no image."""
    value = node.meta.get("val")
    return value.shape[1] if isinstance(value, Tensor) and value.dim() == 4 and value.is_floating_point() else None


def _of_tensor(held: Any) -> Tensor | None:
    if not isinstance(held, Tensor) or held.is_meta or held.dim() != 4 or held.numel() != held.shape[1]:
        return None
    return held.detach().double().cpu().flatten()


def _apart(source: Tensor, function: Callable[[Tensor], Any]) -> Tensor | None:
    """What becomes of constants where every number is changed by itself."""
    known = torch.where(source.isnan(), 0, source)
    result = function(known.view(1, -1, 1, 1).clone())
    return torch.where(source.isnan(), source, result.flatten()) if result.numel() == len(source) else None


def _convolved(conv: nn.Conv2d | nn.ConvTranspose2d, source: Tensor) -> Tensor:
    """An output is constant where all that it is made of is; zeros that come in at the border are another constant."""
    held = conv.weight.detach().double().cpu()
    turned = isinstance(conv, nn.ConvTranspose2d)
    blocks = held.view(conv.groups, -1, *held.shape[1:])  # (groups, outputs or inputs of one, ...)
    taps = blocks.transpose(1, 2) if turned else blocks  # (groups, outputs, inputs, height, width)
    uses = (taps != 0).any(-1).any(-1).double()
    varies = source.isnan() if passes_shift(conv) else source != 0
    moved = (uses @ varies.double().view(conv.groups, -1, 1)).flatten()
    known = torch.where(source.isnan(), 0, source).view(conv.groups, -1, 1)
    result = (taps.sum((3, 4)) @ known).flatten()
    if conv.bias is not None:
        result += conv.bias.detach().double().cpu()
    return torch.where(moved > 0, torch.nan, result)


def _normalized(norm: nn.Module, source: Tensor) -> Tensor | None:
    weight, bias = norm.weight, norm.bias
    if not isinstance(weight, Tensor) or not isinstance(bias, Tensor):
        return None
    scale, shift = weight.detach().double().cpu(), bias.detach().double().cpu()
    result = torch.where(scale == 0, shift, torch.nan)
    if isinstance(norm, _BatchNorm) and not norm.training and norm.running_mean is not None:
        assert norm.running_var is not None
        mean, variance = norm.running_mean.double().cpu(), norm.running_var.double().cpu()
        own = (source - mean) / (variance + norm.eps).sqrt() * scale + shift
        result = torch.where(scale == 0, shift, own)
    return result


def _shuffled(source: Tensor, factor: Any) -> Tensor | None:
    """Of a pixel shuffle: what is made of several channels is constant where these are the same."""
    if not isinstance(factor, int):
        return None
    groups = source.view(-1, factor**2)
    return torch.where((groups == groups[:, :1]).all(1), groups[:, 0], torch.nan)
