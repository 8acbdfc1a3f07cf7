"""ONNX, by torch.onnx's exporter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from torch.export import ExportedProgram

from ..base.precision import Precision
from .arithmetic import plain_divisions
from .base import Format, Runner, Source, Use, Written
from .quantizing import layer_of, quantized_onnx


class Onnx(Format):
    """One file, the weights in it."""

    name: ClassVar[str] = "onnx"
    title: ClassVar[str] = "ONNX"
    suffixes: ClassVar[tuple[str, ...]] = (".onnx",)
    extra: ClassVar[str | None] = "onnx"
    packages: ClassVar[tuple[str, ...]] = ("onnx", "onnxscript", "onnxruntime")
    precisions: ClassVar[tuple[Precision, ...]] = ("fp32", "fp16", "int8")

    def write(self, source: Source, file: Path) -> Written:
        import onnx

        assert source.program is not None
        plain_divisions(source.program)
        data = converted(source.program)
        if source.quantization is not None:
            data = quantized_onnx(data, source.quantization)
        file.write_bytes(data)
        graph = onnx.load_from_string(data).graph
        return Written([Use(node.op_type, layer_of(node)) for node in graph.node if node.op_type != "Constant"])

    def open(self, file: Path) -> Runner:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        names = [one.name for one in session.get_inputs()]

        def run(inputs: Sequence[Tensor]) -> list[Tensor]:
            given = {name: x.detach().cpu().numpy() for name, x in zip(names, inputs, strict=True)}
            return [torch.from_numpy(value) for value in session.run(None, given)]

        return run


def converted(program: ExportedProgram) -> bytes:
    """A traced network as ONNX, the weights in it."""
    converted = torch.onnx.export(program, dynamo=True, verbose=False, external_data=False)
    assert converted is not None
    return bytes(converted.model_proto.SerializeToString())
