"""MNN, Alibaba's engine for phones, through ONNX."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ...base.errors import EngineError
from ...base.precision import Precision
from ..engine import Compiled, Engine
from .onnx_graph import to_onnx

_PRECISIONS: dict[Precision, str] = {"fp32": "high", "fp16": "low", "bf16": "low_bf16"}


class _Loaded(Compiled):
    def __init__(self, model: bytes, inputs: Sequence[Tensor], threads: int, precision: Precision):
        import MNN.nn

        settings = {"backend": "CPU", "numThread": threads, "precision": _PRECISIONS[precision]}
        manager = MNN.nn.create_runtime_manager((settings,))
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "network.mnn")
            file.write_bytes(model)
            self._module = MNN.nn.load_module_from_file(str(file), [], [], runtime_manager=manager)
        self._manager = manager  # has to live as long as the module
        self._inputs = _variables(inputs)

    def run(self) -> None:
        for value in self._module.forward(self._inputs):
            value.read()  # MNN computes what is read

    def outputs(self, inputs: Sequence[Tensor] | None = None) -> list[Tensor]:
        import MNN.expr

        found = self._module.forward(self._inputs if inputs is None else _variables(inputs))
        return [torch.from_numpy(np.array(MNN.expr.convert(value, MNN.expr.NCHW).read())) for value in found]


class Mnn(Engine):
    """Alibaba's engine for phones."""

    name: ClassVar[str] = "mnn"
    summary: ClassVar[str] = "MNN on the CPU, another engine of phones"
    extra: ClassVar[str | None] = "mnn"
    packages: ClassVar[tuple[str, ...]] = ("MNN", "onnx", "onnxscript")
    precisions: ClassVar[tuple[Precision, ...]] = tuple(_PRECISIONS)
    converted: ClassVar[tuple[Precision, ...]] = ()

    def _pack(self, module: nn.Module, inputs: Sequence[Tensor]) -> bytes:
        import MNN  # noqa: F401 (loads what _tools is linked against)

        # Not MNN.tools.mnnconvert: on import that runs `pip install` for its telemetry.
        from _tools import mnnconvert

        with tempfile.TemporaryDirectory() as folder:
            source, made = Path(folder, "network.onnx"), Path(folder, "network.mnn")
            source.write_bytes(to_onnx(module, inputs))
            options = {"-f": "ONNX", "--modelFile": str(source), "--MNNModel": str(made), "--bizCode": "mofa"}
            mnnconvert(["mnnconvert", *(part for option in options.items() for part in option)])
            if not made.is_file():
                raise EngineError(
                    f"mnn does not take {type(module).__name__}: its converter wrote nothing", code="wrong-input"
                )
            return made.read_bytes()

    def _load(self, packed: bytes, inputs: Sequence[Tensor], threads: int) -> Compiled:
        return _Loaded(packed, inputs, threads, self.precision)


def _variables(inputs: Sequence[Tensor]) -> list[Any]:
    import MNN.expr

    return [MNN.expr.const(x.detach().contiguous().numpy(), list(x.shape), MNN.expr.NCHW) for x in inputs]
