"""Convolutions that are no modules: calls of `F.conv2d` and its like, which passes can only name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, fx, nn

from ...graph.macs import function_name
from ...graph.program import Program
from .layer import Layer, Site

if TYPE_CHECKING:
    from ..anatomy import Anatomy

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
        _layer(node, program, anatomy)
        for node in program.graph.nodes
        if node.op == "call_function" and function_name(node) in _STAND_INS
    ]


def _layer(node: fx.Node, program: Program, anatomy: Anatomy) -> Layer:
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
