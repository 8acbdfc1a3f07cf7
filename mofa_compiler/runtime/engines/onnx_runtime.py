"""ONNX Runtime, through the exporter of torch.onnx."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ...export.onnx import to_onnx
from ..engine import Compiled, Engine


class _Session(Compiled):
    def __init__(self, model: bytes, inputs: Sequence[Tensor], threads: int):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._names = [one.name for one in self._session.get_inputs()]
        self._inputs = self._named(inputs)

    def run(self) -> None:
        self._session.run(None, self._inputs)

    def outputs(self, inputs: Sequence[Tensor] | None = None) -> list[Tensor]:
        given = self._inputs if inputs is None else self._named(inputs)
        return [torch.from_numpy(np.asarray(value)) for value in self._session.run(None, given)]

    def _named(self, inputs: Sequence[Tensor]) -> dict[str, np.ndarray]:
        return {name: x.detach().numpy() for name, x in zip(self._names, inputs, strict=True)}


class OnnxRuntime(Engine):
    """The runtime's own graph optimizations are on, as they are by default."""

    name: ClassVar[str] = "onnxruntime"
    summary: ClassVar[str] = "ONNX Runtime, CPU execution provider"
    extra: ClassVar[str | None] = "onnx"
    packages: ClassVar[tuple[str, ...]] = ("onnxruntime", "onnx", "onnxscript")

    def compile(self, module: nn.Module, inputs: Sequence[Tensor], threads: int = 1) -> Compiled:
        model = to_onnx(module, inputs)
        return _Session(model, inputs, threads)
