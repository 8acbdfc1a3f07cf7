"""OpenVINO on the CPU, fed with ONNX: its own PyTorch front end keeps no names of layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ...base.precision import Precision
from ..engine import PROFILED_RUNS, Compiled, Engine, Operator
from ..quiet import quiet
from .onnx_graph import Origins, to_onnx

_HINTS: dict[Precision, str] = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}


class _Request(Compiled):
    def __init__(self, model: bytes, inputs: Sequence[Tensor], threads: int, precision: Precision):
        self._model, self._threads, self._precision = model, threads, precision
        self._compiled = self._start()
        self._request = self._compiled.create_infer_request()
        self._inputs = _numbered(inputs)

    def run(self) -> None:
        self._request.infer(self._inputs)

    def outputs(self, inputs: Sequence[Tensor] | None = None) -> list[Tensor]:
        found = self._request.infer(self._inputs if inputs is None else _numbered(inputs))
        return [torch.from_numpy(np.array(value)) for value in found.to_tuple()]

    def profile(self) -> list[Operator]:
        """Every node that was executed; a fused one has the layer of its convolution."""
        with quiet():
            compiled = self._start(PERF_COUNT=True)
            request = compiled.create_infer_request()
            for _ in range(PROFILED_RUNS):
                request.infer(self._inputs)
            nodes = compiled.get_runtime_model().get_ordered_ops()
        origin, operators = Origins(self._model), []
        for node in nodes:
            told = node.get_rt_info()
            time = str(told["execTimeMcs"].value)
            if time.isdigit():  # "not_executed" otherwise
                name = node.get_friendly_name()
                kind, originals = str(told["layerType"].value), str(told["originalLayersNames"].value).split(",")
                layer = origin(name, *originals, convolution="onvolution" in kind)
                operators.append(Operator(name, kind, int(time) / 1e3, layer))
        return operators

    def _start(self, **settings: Any) -> Any:
        import openvino

        core = openvino.Core()
        config = {
            "INFERENCE_NUM_THREADS": self._threads,
            "INFERENCE_PRECISION_HINT": _HINTS[self._precision],  # by default bfloat16, where the CPU can
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        return core.compile_model(core.read_model(self._model), "CPU", {**config, **settings})


class OpenVino(Engine):
    """Intel's engine."""

    name: ClassVar[str] = "openvino"
    summary: ClassVar[str] = "OpenVINO on the CPU"
    extra: ClassVar[str | None] = "openvino"
    packages: ClassVar[tuple[str, ...]] = ("openvino", "onnx", "onnxscript")
    precisions: ClassVar[tuple[Precision, ...]] = tuple(_HINTS)
    converted: ClassVar[tuple[Precision, ...]] = ()

    def _pack(self, module: nn.Module, inputs: Sequence[Tensor]) -> bytes:
        return to_onnx(module, inputs)

    def _load(self, packed: bytes, inputs: Sequence[Tensor], threads: int) -> Compiled:
        return _Request(packed, inputs, threads, self.precision)


def _numbered(inputs: Sequence[Tensor]) -> dict[int, np.ndarray]:
    return {index: x.detach().contiguous().numpy() for index, x in enumerate(inputs)}
