"""Finds the convolutions of a program, and the calls of functional ones, which passes can only name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd

from ...graph.macs import function_name, node_macs, vanilla_macs
from ...graph.plain_layers import altered
from ...graph.program import Program
from ...nn.partial_conv import PartialConv2d
from .layer import Layer, Site, nearest
from .neighbours import Neighbours

if TYPE_CHECKING:
    from ..anatomy import Anatomy


def survey(program: Program, anatomy: Anatomy) -> dict[str, Layer]:
    """The convolutions of a program by path, in execution order. Linear in the number of nodes."""
    calls: dict[str, list[fx.Node]] = {}
    for node in program.graph.nodes:
        if node.op == "call_module" and isinstance(program.modules[node.target], (_ConvNd, PartialConv2d)):
            calls.setdefault(node.target, []).append(node)
    neighbours = Neighbours(program, anatomy)
    merged: set[str] = set()  # pointwise convolutions that count together with the depthwise one before them
    layers: dict[str, Layer] = {}
    for path, nodes in calls.items():
        layer = _layer(path, nodes, neighbours, anatomy, layers)
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


def _layer(
    path: str, nodes: list[fx.Node], neighbours: Neighbours, anatomy: Anatomy, earlier: Mapping[str, Layer]
) -> Layer:
    program = neighbours.program
    module = program.modules[path]
    input_shape, output_shape = _shapes(nodes[0])
    sites = tuple(neighbours.site(node) for node in nodes)
    feeder = nearest(sites[0].before) if len(sites) == 1 else None
    return Layer(
        path=path,
        module=module,
        sites=sites,
        input_shape=input_shape,
        output_shape=output_shape,
        parameters=sum(p.numel() for p in module.parameters()),
        macs=sum(node_macs(node, program) for node in nodes),
        vanilla=0,
        stage=anatomy.stage_of(path),
        in_transition=anatomy.in_transition(path),
        is_input=path in anatomy.input_paths,
        is_output=path in anatomy.output_paths,
        source=earlier.get(feeder.path or "") if feeder and feeder.kind == "conv" else None,
        ideal=program.ideals.get(path),
        altered=altered(module),
        tied=neighbours.is_tied(module),
    )


def _shapes(node: fx.Node) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Input and output shape of one call."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    return tuple(source.meta["val"].shape), tuple(node.meta["val"].shape)


_STAND_INS: dict[str, type[nn.Conv2d] | type[nn.ConvTranspose2d]] = {
    "conv2d": nn.Conv2d,
    "conv_transpose2d": nn.ConvTranspose2d,
}
_PARAMETERS: dict[str, tuple[str, ...]] = {
    "conv2d": ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    "conv_transpose2d": ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation"),
}


def functional_convolutions(program: Program, anatomy: Anatomy) -> list[Layer]:
    """The calls of functional convolutions, each as a layer whose module is a stand-in without weights."""
    return [
        _functional_layer(node, program, anatomy)
        for node in program.graph.nodes
        if node.op == "call_function" and function_name(node) in _STAND_INS
    ]


def _functional_layer(node: fx.Node, program: Program, anatomy: Anatomy) -> Layer:
    name = function_name(node)
    given = {**dict(zip(_PARAMETERS[name], node.args, strict=False)), **node.kwargs}
    values: dict[str, Any] = {key: fx.map_arg(value, lambda n: n.meta["val"]) for key, value in given.items()}
    x, weight, bias = values.pop("input"), values.pop("weight"), values.pop("bias", None)
    groups = values.get("groups", 1)
    channels = (weight.shape[1] * groups, weight.shape[0])
    if name == "conv_transpose2d":
        channels = (weight.shape[0], weight.shape[1] * groups)
    geometry = {key: _plain(value) for key, value in values.items()}
    stand_in = _STAND_INS[name](
        *channels, tuple(weight.shape[2:]), bias=isinstance(bias, Tensor), device="meta", **geometry
    )
    stack = list((node.meta.get("nn_module_stack") or {"": ("", None)}).values())
    path = stack[-1][0]
    output: Tensor = node.meta["val"]
    return Layer(
        path=path or program.name,
        module=stand_in,
        sites=(Site(node),),
        input_shape=tuple(x.shape),
        output_shape=tuple(output.shape),
        parameters=0,
        macs=0,
        vanilla=0,
        stage=anatomy.stage_of(path),
        in_transition=anatomy.in_transition(path),
        function=name,
    )


def _plain(value: Any) -> Any:
    """An argument as the module's constructor takes it: a sequence as a tuple, of one number as that number."""
    if not isinstance(value, (list, tuple)):
        return value
    return value[0] if len(value) == 1 else tuple(value)
