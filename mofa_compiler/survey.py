"""The convolutions of a network in their places: what passes look at, and all that they need to know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from statistics import median
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd

from .cost import function_name, node_macs, vanilla_macs
from .layers import PartialConv2d
from .program import Program

if TYPE_CHECKING:
    from .anatomy import Anatomy, Stage

CHEAP_BELOW = 0.5
"""Share of the median encoder stage below which a stage counts as cheap"""

_ACTIVATIONS = frozenset(
    [
        "relu",
        "relu6",
        "leaky_relu",
        "prelu",
        "rrelu",
        "elu",
        "selu",
        "celu",
        "gelu",
        "silu",
        "mish",
        "softplus",
        "sigmoid",
        "tanh",
        "hardswish",
        "hardsigmoid",
        "hardtanh",
        "logsigmoid",
        "softsign",
        "tanhshrink",
    ]
)
_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm)
_SILENT = (nn.Identity, nn.modules.dropout._DropoutNd)
_NOT_POINTWISE_ACTIVATIONS = (nn.MultiheadAttention, nn.Softmax, nn.Softmax2d, nn.LogSoftmax, nn.Softmin, nn.GLU)


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
    mode: str | None = None
    """Interpolation of a resize, `bilinear` with aligned corners as `bilinear, aligned`"""

    @property
    def is_pointwise(self) -> bool:
        return self.module is not None and is_pointwise(self.module)


@dataclass(frozen=True)
class Layer:
    """A convolution module, all the places it is called from, and its neighbours.

    Shapes are those of the first call on the example input; MACs are summed over the calls.
    """

    path: str
    module: nn.Module
    nodes: tuple[fx.Node, ...]
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    parameters: int
    macs: int
    vanilla: int
    """MACs by the paper's estimate: as if it were a vanilla convolution, together with its pointwise one"""
    stage: Stage | None
    in_transition: bool
    is_input: bool
    is_output: bool
    behind: tuple[Step, ...]
    """What follows, one after the other, up to the next convolution, as long as nothing else reads in between"""
    before: tuple[Step, ...]
    """What leads here, nearest first, back to the previous convolution, as long as nothing else reads in between"""
    source: Layer | None
    """The convolution whose output this layer reads directly and alone"""
    ideal: nn.Conv2d | None
    """The depthwise convolution over all channels that a partial one stands for, where it came from one"""
    hooked: bool

    @property
    def channels(self) -> int:
        return self.input_shape[1]

    @property
    def is_depthwise(self) -> bool:
        m = self.module
        return type(m) is nn.Conv2d and m.groups == m.in_channels == m.out_channels and m.groups > 1 and not self.is_1x1

    @property
    def is_dense(self) -> bool:
        m = self.module
        return type(m) is nn.Conv2d and m.groups == 1 and not self.is_1x1

    @property
    def is_1x1(self) -> bool:
        return getattr(self.module, "kernel_size", None) == (1, 1)

    @property
    def stride(self) -> tuple[int, ...]:
        return getattr(self.module, "stride", (1, 1))

    @property
    def pointwise(self) -> Step | None:
        """The 1x1 convolution that alone reads this layer, directly or through norms and activations."""
        last = self.behind[-1] if self.behind else None
        between_is_pointwise = all(step.kind in ("norm", "activation", "identity") for step in self.behind[:-1])
        return last if last and last.is_pointwise and between_is_pointwise else None


def is_pointwise(module: nn.Module) -> bool:
    """Whether a module is a plain 1x1 convolution that mixes all channels."""
    return type(module) is nn.Conv2d and module.kernel_size == (1, 1) and module.stride == (1, 1) and module.groups == 1


@dataclass(frozen=True)
class Share:
    """What one stage holds: parameters, MACs, and MACs by the paper's estimate."""

    stage: str
    parameters: int
    macs: int
    vanilla: int


@dataclass(frozen=True)
class Totals:
    """Parameters and MACs of a network, whole and by stage."""

    parameters: int
    macs: int
    stages: tuple[Share, ...]


@dataclass(frozen=True)
class Network:
    """A program and the anatomy of the model that it came from, surveyed once."""

    program: Program
    anatomy: Anatomy

    @cached_property
    def layers(self) -> dict[str, Layer]:
        """Convolutions by path, in execution order."""
        return survey(self.program, self.anatomy)

    @cached_property
    def totals(self) -> Totals:
        program, anatomy, layers = self.program, self.anatomy, self.layers
        sums = {stage.name: [0, 0, 0] for stage in anatomy.stages}
        seen: set[int] = set()

        def share(path: str) -> list[int]:
            stage = anatomy.stage_of(path)
            return sums.setdefault(stage.name if stage else "other", [0, 0, 0])

        for path, module in program.modules.items():
            new = {id(p): p.numel() for p in module.parameters() if id(p) not in seen}
            seen |= new.keys()
            if new:
                share(path)[0] += sum(new.values())
        for path, tensor in program.tensors.items():
            if isinstance(tensor, nn.Parameter) and id(tensor) not in seen:
                seen.add(id(tensor))
                share(path)[0] += tensor.numel()
        for path, layer in layers.items():
            share(path)[1] += layer.macs
            share(path)[2] += layer.vanilla
        for node in program.graph.nodes:
            if node.op == "output" or node.target in layers:
                continue
            macs = node_macs(node, program)
            if macs:
                stack = list((node.meta.get("nn_module_stack") or {"": ("", None)}).values())
                share(stack[-1][0])[1] += macs
        return Totals(
            parameters=sum(s[0] for s in sums.values()),
            macs=sum(s[1] for s in sums.values()),
            stages=tuple(Share(name, *values) for name, values in sums.items()),
        )

    @cached_property
    def cheap_reference(self) -> float:
        """Median of the encoder stages' MACs by the paper's estimate; 0 without encoders."""
        costs = {share.stage: share.vanilla for share in self.totals.stages}
        encoders = [costs[stage.name] for stage in self.anatomy.stages if stage.kind == "encoder"]
        return float(median(encoders)) if encoders else 0.0

    def is_cheap(self, stage: Stage, below: float = CHEAP_BELOW) -> tuple[bool, str]:
        """Whether a stage costs less than `below` of the median encoder stage, and a sentence that says so.

        By the paper's estimate (Figure 4); stem, head and what is no stage of a U-Net never count as cheap.
        """
        if not self.anatomy.is_unet:
            return False, f"the network is no U-Net ({self.anatomy.reason})"
        if stage.kind not in ("encoder", "bottleneck", "decoder"):
            return False, f"{stage.name} is never widened"
        cost = next(share.vanilla for share in self.totals.stages if share.stage == stage.name)
        limit = below * self.cheap_reference
        comparison = "<" if cost < limit else "≥"
        share = f"{below:g} of the median encoder stage"
        word = "cheap" if cost < limit else "not cheap"
        return cost < limit, f"{stage.name} is {word}: {cost / 1e9:.2f} G {comparison} {limit / 1e9:.2f} G ({share})"


def survey(program: Program, anatomy: Anatomy) -> dict[str, Layer]:
    """The convolutions of a program by path, in execution order. Linear in the number of nodes."""
    calls: dict[str, list[fx.Node]] = {}
    for node in program.graph.nodes:
        if node.op == "call_module" and isinstance(program.modules[node.target], (_ConvNd, PartialConv2d)):
            calls.setdefault(node.target, []).append(node)
    merged: set[str] = set()  # pointwise convolutions that count together with the depthwise one before them
    layers: dict[str, Layer] = {}
    for path, nodes in calls.items():
        layer = _layer(path, nodes, program, anatomy, layers)
        mixes_to = None
        if layer.pointwise and (layer.is_depthwise or isinstance(layer.module, PartialConv2d)):
            pointwise = layer.pointwise.module
            assert isinstance(pointwise, nn.Conv2d) and layer.pointwise.path
            mixes_to = pointwise.out_channels
            merged.add(layer.pointwise.path)
        if path not in merged and len(layer.input_shape) == 4:
            vanilla = len(nodes) * vanilla_macs(layer.module, mixes_to, layer.input_shape, layer.output_shape)
            layer = replace(layer, vanilla=vanilla)
        layers[path] = layer
    return layers


def keeps_size(conv: nn.Conv2d) -> bool:
    """Whether a convolution's output is as large as its input, at every size."""
    if conv.stride != (1, 1):
        return False
    if isinstance(conv.padding, str):
        return conv.padding == "same"
    return all(2 * p == d * (k - 1) for k, p, d in zip(conv.kernel_size, conv.padding, conv.dilation, strict=True))


def _layer(path: str, nodes: list[fx.Node], program: Program, anatomy: Anatomy, earlier: Mapping[str, Layer]) -> Layer:
    module = program.modules[path]
    source = nodes[0].args[0]
    assert isinstance(source, fx.Node)
    once = len(nodes) == 1
    before = tuple(_chain(nodes[0], program, forward=False)) if once else ()
    nearest = next((step for step in before if step.kind != "identity"), None)
    return Layer(
        path=path,
        module=module,
        nodes=tuple(nodes),
        input_shape=tuple(source.meta["val"].shape),
        output_shape=tuple(nodes[0].meta["val"].shape),
        parameters=sum(p.numel() for p in module.parameters()),
        macs=sum(node_macs(node, program) for node in nodes),
        vanilla=0,
        stage=anatomy.stage_of(path),
        in_transition=anatomy.in_transition(path),
        is_input=path in anatomy.input_paths,
        is_output=path in anatomy.output_paths,
        behind=tuple(_chain(nodes[0], program, forward=True)) if once else (),
        before=before,
        source=earlier.get(nearest.path or "") if nearest and nearest.kind == "conv" else None,
        ideal=program.ideals.get(path),
        hooked=_has_hooks(module),
    )


def _chain(node: fx.Node, program: Program, *, forward: bool) -> Iterator[Step]:
    while True:
        if forward:
            if len(node.users) != 1:
                return
            following = next(iter(node.users))
            if not following.args or following.args[0] is not node:
                return
        else:
            source = node.args[0] if node.args else None
            if not isinstance(source, fx.Node) or len(source.users) != 1:
                return
            following = source
        node = following
        step = _step(node, program)
        yield step
        if step.kind in ("conv", "other"):
            return


def _step(node: fx.Node, program: Program) -> Step:
    path = str(node.target) if node.op == "call_module" else None
    module = program.modules[path] if path else None
    kind = _module_kind(module) if module else _function_kind(node)
    operation = type(module).__name__ if module else function_name(node)
    if kind == "shuffle":
        return Step(node.name, operation, kind, path, module, _factor(node))
    if kind == "resize":
        options = vars(module) if module else _interpolate_options(node)
        by_factor = options.get("size") is None and not isinstance(options.get("scale_factor"), fx.Node)
        mode = str(options.get("mode") or "nearest") + (", aligned" if options.get("align_corners") else "")
        return Step(node.name, operation, kind, path, module, _factor(node) if by_factor else None, mode)
    return Step(node.name, operation, kind, path, module)


def _interpolate_options(node: fx.Node) -> dict[str, Any]:
    names = ("input", "size", "scale_factor", "mode", "align_corners")
    return {**dict(zip(names, node.args, strict=False)), **node.kwargs}


def _function_kind(node: fx.Node) -> str:
    name = function_name(node) if node.op in ("call_function", "call_method") else ""
    if name in _ACTIVATIONS:
        return "activation"
    if name in ("interpolate", "upsample"):
        return "resize"
    if name == "pixel_shuffle":
        return "shuffle"
    return "identity" if node.target in (F.dropout, F.dropout2d) else "other"


def _module_kind(module: nn.Module) -> str:
    if isinstance(module, (_ConvNd, PartialConv2d)):
        return "conv"
    if isinstance(module, _NORMS):
        return "norm"
    if isinstance(module, nn.Upsample):
        return "resize"
    if isinstance(module, nn.PixelShuffle):
        return "shuffle"
    if isinstance(module, _SILENT):
        return "identity"
    in_torch = type(module).__module__ == "torch.nn.modules.activation"
    return "activation" if in_torch and not isinstance(module, _NOT_POINTWISE_ACTIVATIONS) else "other"


def _factor(node: fx.Node) -> int | None:
    source = node.args[0] if node.args else None
    value = node.meta.get("val")
    if not isinstance(source, fx.Node) or not isinstance(value, Tensor) or value.dim() != 4:
        return None
    before, after = source.meta["val"].shape[2:], value.shape[2:]
    vertical, horizontal = Fraction(after[0], before[0]), Fraction(after[1], before[1])
    return int(vertical) if vertical == horizontal and vertical.denominator == 1 else None


def _has_hooks(module: nn.Module) -> bool:
    return any(
        getattr(inner, hooks)
        for inner in module.modules()
        for hooks in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    )


def signature(module: nn.Module) -> str:
    """A module in one short line: `Conv2d(64→128, k3, s2)`, `PConv2d(64, k5, portion=1/4)`; several joined by ` + `."""
    if isinstance(module, nn.Sequential):
        return " + ".join(signature(child) for child in module)
    if isinstance(module, PartialConv2d):
        portion = Fraction(module.convolved, module.channels)
        return f"{type(module).__name__}({module.channels}, {_geometry(module.conv)}, portion={portion})"
    if isinstance(module, _ConvNd):
        depthwise = 1 < module.groups == module.in_channels == module.out_channels
        channels = str(module.in_channels) if depthwise else f"{module.in_channels}→{module.out_channels}"
        groups = "depthwise" if depthwise else f"groups={module.groups}" if module.groups > 1 else ""
        return f"{type(module).__name__}({', '.join(filter(None, (channels, _geometry(module), groups)))})"
    if isinstance(module, nn.Upsample):
        return f"Upsample(x{int(module.scale_factor or 0)}, {module.mode})"  # type: ignore[arg-type]
    if isinstance(module, nn.AvgPool2d):
        return f"AvgPool2d({module.kernel_size})"
    return repr(module)


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
