"""Post-training static quantization to eight bits, by the engines' own tools: weights by channel, values by tensor."""

from __future__ import annotations

import ast
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from ..base.errors import CalibrationError, EngineError
from ..graph.call_spec import CallSpec, example_call, in_standard_layout, tensors_by_position
from .base import Quantization, module_path, operator_name
from .torch_export import calm

EXAMPLES = 8
"""Inputs whose values tell the ranges of all others, at most"""


_ROOTS = ("sqrt", "rsqrt", "reciprocal", "log")
_SQUARES = ("mul", "pow")
_ON_THE_WAY = (*_SQUARES, "add", "div", "mean", "sum", "reducemean", "reducesum", "conv", "conv2d")

N = TypeVar("N")


def under_roots(nodes: Iterable[N], kind: Callable[[N], str], source: Callable[[N], Sequence[N]]) -> set[N]:
    """Operations whose results go into a square root or a logarithm, from the squares on: variances stay in float.

    They are small next to their largest: eight bits for the tensor leave none for most pixels, and what is divided by
    them is lost (0.12 of the output of a layer normalization, where 0.01 are usual).

    Args:
        nodes: of a graph.
        kind: an operation's name in small letters.
        source: the operations whose results it takes, constants left out.
    """
    found, waiting = set[N](), [one for node in nodes if kind(node) in _ROOTS for one in source(node)]
    while waiting:
        node = waiting.pop()
        if node not in found and kind(node) in _ON_THE_WAY:
            found.add(node)
            waiting += () if kind(node) in _SQUARES else source(node)
    return found


def quantized_onnx(model: bytes, quantization: Quantization) -> bytes:
    """An ONNX model with quantized values between its operators (QDQ), as ONNX Runtime's static quantization puts them.

    Values have no sign, weights have one: on an x86 with VNNI NAFNet takes 0.83 of its time in fp32 so, and 1.36 with
    signs on both. It was not timed on ARM. Raises whatever that raises.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    graph = onnx.load_from_string(model).graph
    names = [one.name for one in graph.input]
    stays = [node.name for node in graph.node if quantization.stays(layer_of(node))]

    class Examples(CalibrationDataReader):  # type: ignore[misc]
        left = iter(quantization.examples)

        def get_next(self) -> dict[str, Any] | None:
            example = next(self.left, None)
            return None if example is None else dict(zip(names, (x.numpy() for x in example), strict=True))

    with tempfile.TemporaryDirectory(prefix="mofa-quantizing-") as folder, calm():
        given, prepared, made = (Path(folder, name) for name in ("float.onnx", "prepared.onnx", "int8.onnx"))
        given.write_bytes(model)
        quant_pre_process(given, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            made,
            Examples(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[*_variances(graph), *stays],
        )
        return made.read_bytes()


def quantized_program(program: ExportedProgram, quantization: Quantization) -> ExportedProgram:
    """A traced network with quantized values between its operators, as XNNPACK's quantizer puts them (PT2E, symmetric).

    Raises whatever that raises.
    """
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    module = program.module()
    variances = under_roots(module.graph.nodes, _kind, lambda node: node.all_input_nodes)

    def is_quantized(node: fx.Node) -> bool:
        return node not in variances and not quantization.stays(module_path(node))

    with calm(), torch.no_grad():
        quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
        prepared = prepare_pt2e(module, quantizer.set_filter_function(is_quantized))
        for example in quantization.examples:
            prepared(*laid_out(example))
        args, kwargs = program.example_inputs
        return torch.export.export(convert_pt2e(prepared), args, kwargs)


def layer_of(node: object) -> str | None:
    """Where the exporter says that a node comes from: a list of module paths, the last of which is the node itself."""
    for entry in node.metadata_props:  # type: ignore[attr-defined]
        if entry.key == "pkg.torch.onnx.name_scopes":
            scopes = ast.literal_eval(entry.value)
            return str(scopes[-2]) if len(scopes) > 1 else ""
    return None


def _variances(graph: Any) -> Iterator[str]:
    """Names of the nodes of an ONNX graph that variances are made by."""
    made = {name: index for index, node in enumerate(graph.node) for name in node.output}
    places = under_roots(
        range(len(graph.node)),
        lambda index: graph.node[index].op_type.lower(),
        lambda index: [made[name] for name in graph.node[index].input if name in made],
    )
    return (graph.node[index].name for index in places)


def _kind(node: fx.Node) -> str:
    return operator_name(node).partition(".")[0] if node.op == "call_function" else ""


def laid_out(values: Sequence[Any]) -> Iterator[Any]:
    """Tensors in the memory layout that programs are written for; they may lie in tuples."""
    for value in values:
        yield in_standard_layout(value) if isinstance(value, Tensor) else tuple(laid_out(value))


def examples(module: nn.Module, batches: Iterable[Any], inputs: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
    """Calibration inputs in the shapes that a network is compiled for; images are put together of crops.

    Raises:
        CalibrationError: none has these shapes.
    """
    wanted = [x.shape for x in inputs]
    found = list(islice(_examples(module, batches, wanted), EXAMPLES))
    if not found:
        shapes = ", ".join("x".join(map(str, shape)) for shape in wanted)
        raise CalibrationError(
            f"to quantize, the ranges of values are taken from calibration inputs, and none has the shapes {shapes}: "
            "calibrate on such inputs",
            code="wrong-input",
        )
    return found


def _examples(module: nn.Module, batches: Iterable[Any], wanted: Sequence[torch.Size]) -> Iterator[tuple[Tensor, ...]]:
    for batch in batches:
        given = batch if isinstance(batch, CallSpec) else example_call(module, batch)
        try:
            tensors = tensors_by_position(module, given)
        except EngineError:
            continue
        if len(tensors) == 1 and tensors[0].dim() == 4:
            yield from ((image,) for image in _mosaics(tensors[0], wanted[0]))
        else:
            rows = wanted[0][0] if wanted[0] else 1
            for start in range(0, len(tensors[0]) if tensors[0].dim() else 1, rows):
                part = tuple(x[start : start + rows] if x.dim() else x for x in tensors)
                if [x.shape for x in part] == list(wanted):
                    yield part


def _mosaics(crops: Tensor, wanted: torch.Size) -> Iterator[Tensor]:
    """Images of another shape of crops side by side, or cut from them."""
    if len(wanted) != 4 or crops.shape[1] != wanted[1]:
        return
    rows, columns = (-(-side // own) for side, own in zip(wanted[2:], crops.shape[2:], strict=True))
    number = wanted[0] * rows * columns
    for start in range(0, len(crops), number):
        some = crops[torch.arange(start, start + number) % len(crops)]  # the last ones begin anew
        grid = some.reshape(wanted[0], rows, columns, *crops.shape[1:]).permute(0, 3, 1, 4, 2, 5)
        yield grid.flatten(4, 5).flatten(2, 3)[..., : wanted[2], : wanted[3]].contiguous()
