"""Finds the convolutions of a program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import fx, nn
from torch.nn.modules.conv import _ConvNd

from ...graph.macs import node_macs, vanilla_macs
from ...graph.plain_layers import altered
from ...graph.program import Program
from ...nn.partial_conv import PartialConv2d
from .layer import Layer, nearest
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
