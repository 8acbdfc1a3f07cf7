"""The convolutions of a network in their places: what passes look at, and all that they need to know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd

from .cost import function_name, node_macs, vanilla_macs
from .layers import PartialConv2d
from .program import Program

if TYPE_CHECKING:
    from .anatomy import Anatomy, Stage

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
    free: bool = True
    """Whether its weights may be adjusted for a neighbour: called once, nothing shared, no hooks, no input or output"""
    mode: str | None = None
    """Interpolation of a resize, `bilinear` with aligned corners as `bilinear, aligned`"""

    @property
    def is_pointwise(self) -> bool:
        return self.kind == "conv" and self.module is not None and is_pointwise(self.module)


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
    fed_by: Step | None
    """What it reads, whoever else reads that too; None where that is an input or a parameter"""
    source: Layer | None
    """The convolution whose output this layer reads directly and alone"""
    ideal: nn.Conv2d | None
    """The depthwise convolution over all channels that a partial one stands for, where it came from one"""
    hooked: bool
    tied: bool
    """Whether another module holds one of its parameters"""

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


def survey(program: Program, anatomy: Anatomy) -> dict[str, Layer]:
    """The convolutions of a program by path, in execution order. Linear in the number of nodes."""
    calls: dict[str, list[fx.Node]] = {}
    for node in program.graph.nodes:
        if node.op == "call_module" and isinstance(program.modules[node.target], (_ConvNd, PartialConv2d)):
            calls.setdefault(node.target, []).append(node)
    linked = _Links(program, anatomy)
    merged: set[str] = set()  # pointwise convolutions that count together with the depthwise one before them
    layers: dict[str, Layer] = {}
    for path, nodes in calls.items():
        layer = _layer(path, nodes, linked, anatomy, layers)
        mixes_to = None
        if layer.pointwise and (layer.is_depthwise or isinstance(layer.module, PartialConv2d)):
            pointwise = layer.pointwise.module
            assert isinstance(pointwise, nn.Conv2d) and layer.pointwise.path
            mixes_to = pointwise.out_channels
            merged.add(layer.pointwise.path)
        if layer.is_depthwise and layer.pointwise and layer.pointwise.path in anatomy.output_paths:
            layer = replace(layer, is_output=True)
        if path not in merged and len(layer.input_shape) == 4:
            vanilla = sum(vanilla_macs(layer.module, mixes_to, *_shapes(node)) for node in nodes)
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


def _layer(path: str, nodes: list[fx.Node], links: _Links, anatomy: Anatomy, earlier: Mapping[str, Layer]) -> Layer:
    program = links.program
    module = program.modules[path]
    input_shape, output_shape = _shapes(nodes[0])
    feeder = nodes[0].args[0]
    assert isinstance(feeder, fx.Node)
    once = len(nodes) == 1
    before = tuple(links.chain(nodes[0], forward=False)) if once else ()
    nearest = next((step for step in before if step.kind != "identity"), None)
    return Layer(
        path=path,
        module=module,
        nodes=tuple(nodes),
        input_shape=input_shape,
        output_shape=output_shape,
        parameters=sum(p.numel() for p in module.parameters()),
        macs=sum(node_macs(node, program) for node in nodes),
        vanilla=0,
        stage=anatomy.stage_of(path),
        in_transition=anatomy.in_transition(path),
        is_input=path in anatomy.input_paths,
        is_output=path in anatomy.output_paths,
        behind=tuple(links.chain(nodes[0], forward=True)) if once else (),
        before=before,
        fed_by=links.step(feeder) if feeder.op.startswith("call") else None,
        source=earlier.get(nearest.path or "") if nearest and nearest.kind == "conv" else None,
        ideal=program.ideals.get(path),
        hooked=_has_hooks(module),
        tied=links.is_tied(module),
    )


def _shapes(node: fx.Node) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Input and output shape of one call."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    return tuple(source.meta["val"].shape), tuple(node.meta["val"].shape)


class _Links:
    """How the calls of a program hang together; built once, so that each neighbour is found in constant time."""

    def __init__(self, program: Program, anatomy: Anatomy):
        self.program = program
        self.ends = anatomy.input_paths | anatomy.output_paths
        self.calls = Counter(str(node.target) for node in program.graph.nodes if node.op == "call_module")
        self.holders = Counter(
            id(parameter)
            for module in {id(module): module for module in program.modules.values()}.values()
            for parameter in module.parameters()
        )
        read = (program.tensor(str(node.target)) for node in program.graph.nodes if node.op == "get_attr")
        self.holders.update(id(tensor) for tensor in read)

    def is_free(self, path: str, module: nn.Module) -> bool:
        return self.calls[path] == 1 and path not in self.ends and not self.is_tied(module) and not _has_hooks(module)

    def is_tied(self, module: nn.Module) -> bool:
        return any(self.holders[id(parameter)] > 1 for parameter in module.parameters())

    def chain(self, node: fx.Node, *, forward: bool) -> Iterator[Step]:
        """The steps that follow a call, or lead to it, as long as nothing else reads in between."""
        while True:
            following: Any = next(iter(node.users), None) if forward else next(iter(node.args), None)
            if not isinstance(following, fx.Node):
                return
            first, second = (node, following) if forward else (following, node)
            if len(first.users) != 1 or not second.args or second.args[0] is not first:
                return
            node = following
            step = self.step(node)
            yield step
            if step.kind in ("conv", "other"):
                return

    def step(self, node: fx.Node) -> Step:
        path = str(node.target) if node.op == "call_module" else None
        module = self.program.modules[path] if path else None
        kind = _module_kind(module) if module else _function_kind(node)
        operation = type(module).__name__ if module else function_name(node)
        free = path is not None and module is not None and self.is_free(path, module)
        if kind == "shuffle":
            return Step(node.name, operation, kind, path, module, _factor(node), free)
        if kind == "resize":
            options = vars(module) if module else _interpolate_options(node)
            factor = _factor(node)
            if (
                options.get("size") is not None
                or options.get("antialias")
                or not _is(options.get("scale_factor"), factor)
            ):
                factor = None
            mode = str(options.get("mode") or "nearest") + (", aligned" if options.get("align_corners") else "")
            return Step(node.name, operation, kind, path, module, factor, free, mode)
        return Step(node.name, operation, kind, path, module, None, free)


def _interpolate_options(node: fx.Node) -> dict[str, Any]:
    names = ("input", "size", "scale_factor", "mode", "align_corners")
    return {**dict(zip(names, node.args, strict=False)), **node.kwargs}


def _is(scale_factor: Any, factor: int | None) -> bool:
    """Whether the scale factor of a resize is this whole factor in both directions, not only at the example size."""
    factors = scale_factor if isinstance(scale_factor, (tuple, list)) else (scale_factor,)
    return factor is not None and all(isinstance(f, (int, float)) and f == factor for f in factors)


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
