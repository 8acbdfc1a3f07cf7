"""ONNX Runtime, through the exporter of torch.onnx."""

from __future__ import annotations

import json
import platform
import tempfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ...base.precision import Precision
from ...formats.quantizing import quantized_onnx
from ..engine import PROFILED_RUNS, Compiled, Engine, Operator
from ..quiet import quiet
from .onnx_graph import Origins, outputs_of, to_onnx, to_onnx_each

_KERNEL = "_kernel_time"


class _Session(Compiled):
    def __init__(self, model: bytes, inputs: Sequence[Tensor], threads: int):
        self._model, self._threads = model, threads
        self._session = self._start()
        self._names = [one.name for one in self._session.get_inputs()]
        self._inputs = self._named(inputs)

    def run(self) -> None:
        self._session.run(None, self._inputs)

    def outputs(self, inputs: Sequence[Tensor] | None = None) -> list[Tensor]:
        given = self._inputs if inputs is None else self._named(inputs)
        return [torch.from_numpy(np.asarray(value)) for value in self._session.run(None, given)]

    def profile(self) -> list[Operator]:
        """Every kernel; a fused one has the layer of its convolution."""
        import onnx

        with tempfile.TemporaryDirectory() as folder, quiet():
            optimized = Path(folder, "optimized.onnx")
            session = self._start(
                enable_profiling=True,
                profile_file_prefix=str(Path(folder, "profile")),
                optimized_model_filepath=str(optimized),
            )
            for _ in range(PROFILED_RUNS + 1):
                session.run(None, self._inputs)
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
            made = outputs_of(onnx.load(optimized))
        times: dict[str, list[float]] = {}
        kinds: dict[str, str] = {}
        for event in events:
            if event.get("cat") == "Node" and event["name"].endswith(_KERNEL):
                name = event["name"].removesuffix(_KERNEL)
                times.setdefault(name, []).append(event["dur"] / 1e3)
                kinds[name] = event["args"]["op_name"]
        origin = Origins(self._model)
        return [
            Operator(
                name,
                kinds[name],
                float(np.median(ms[1:])),
                origin(name, *made.get(name, ()), convolution="Conv" in kinds[name]),
            )
            for name, ms in times.items()
        ]

    def _start(self, **settings: Any) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self._threads, 1
        options.log_severity_level = 3
        for name, value in settings.items():
            setattr(options, name, value)
        return onnxruntime.InferenceSession(self._model, options, providers=["CPUExecutionProvider"])

    def _named(self, inputs: Sequence[Tensor]) -> dict[str, np.ndarray]:
        return {name: x.detach().numpy() for name, x in zip(self._names, inputs, strict=True)}


class OnnxRuntime(Engine):
    """The runtime's own graph optimizations are on, as they are by default."""

    name: ClassVar[str] = "onnxruntime"
    summary: ClassVar[str] = "ONNX Runtime, CPU execution provider"
    extra: ClassVar[str | None] = "onnx"
    packages: ClassVar[tuple[str, ...]] = ("onnxruntime", "onnx", "onnxscript")
    at_once: ClassVar[int] = 24
    precisions: ClassVar[tuple[Precision, ...]] = ("fp32", "fp16", "int8")

    @cached_property
    def emulated(self) -> str | None:
        if self.precision != "fp16" or platform.machine() in ("arm64", "aarch64"):
            return super().emulated
        return "it has kernels of fp16 for ARM alone, and converts around every operator elsewhere"

    def _pack(self, module: nn.Module, inputs: Sequence[Tensor]) -> bytes:
        model = to_onnx(module, inputs)
        return quantized_onnx(model, self._quantization(inputs)) if self.precision == "int8" else model

    def _pack_each(self, modules: Sequence[nn.Module], inputs: Sequence[Sequence[Tensor]]) -> list[bytes]:
        return to_onnx_each(modules, inputs, quantized=self.precision == "int8")

    def _load(self, packed: bytes, inputs: Sequence[Tensor], threads: int) -> Compiled:
        return _Session(packed, inputs, threads)
