"""ExecuTorch with XNNPACK: what ships to phones."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from ...base.precision import Precision
from ...formats.executorch import lowered
from ...formats.quantizing import laid_out, quantized_program
from ...formats.torch_export import trace
from ...graph.call_spec import in_standard_layout
from ..engine import PROFILED_RUNS, Compiled, Engine, Operator
from ..quiet import quiet

_WRAPPERS = ("DELEGATE_CALL", "OPERATOR_CALL", "Method::")
_ATEN = {
    "Convolution": "convolution",
    "Deconvolution": "convolution",
    "Fully Connected": "convolution",
    "Add": "add",
    "Subtract": "sub",
    "Multiply": "mul",
    "Divide": "div",
    "Mean": "mean",
    "Square": "pow",
    "Square Root": "sqrt",
    "Constant Pad": "constant_pad_nd",
    "Concatenate": "cat",
    "Static Slice": "slice_copy",
}
"""What XNNPACK calls an operation: what ATen calls it"""


class _Method(Compiled):
    def __init__(
        self, program: bytes, inputs: Sequence[Tensor], threads: int, trace: Callable[[], ExportedProgram] | None = None
    ):
        from executorch.runtime import Runtime

        self._program = Runtime.get().load_program(program)  # has to live as long as its method
        self._method = self._program.load_method("forward")
        self._inputs = [in_standard_layout(x) for x in inputs]
        self._threads, self._trace = threads, trace

    def run(self) -> None:
        self._method.execute(self._inputs)

    def outputs(self, inputs: Sequence[Tensor] | None = None) -> list[Tensor]:
        given = self._inputs if inputs is None else [in_standard_layout(x) for x in inputs]
        return [value.clone() for value in self._method.execute(given)]

    def profile(self) -> list[Operator] | None:
        """Every kernel, by ExecuTorch's ETDump. The network is lowered once more for that.

        XNNPACK names the kinds of its kernels only; layers are those of the graph's operations of that kind, in order,
        where the numbers of both agree.
        """
        if self._trace is None:
            return None
        from executorch.devtools import Inspector
        from executorch.runtime import Runtime

        with quiet(), tempfile.TemporaryDirectory() as folder, Xnnpack().running(self._threads):
            with torch.inference_mode(False):
                program_again = lowered(self._trace(), generate_etrecord=True).to_executorch()
            record, dump = Path(folder, "record.bin"), Path(folder, "dump.etdp")
            program_again.get_etrecord().save(str(record))
            program = Runtime.get().load_program(bytes(program_again.buffer), enable_etdump=True)
            method = program.load_method("forward")
            for _ in range(PROFILED_RUNS):
                method.execute(self._inputs)
            program.write_etdump_result_to_file(str(dump), str(Path(folder, "unused.bin")))
            inspector = Inspector(etdump_path=str(dump), etrecord=str(record))
            return _operators(next(block.events for block in inspector.event_blocks if block.name == "Execute"))


class Xnnpack(Engine):
    """ExecuTorch, what XNNPACK takes delegated to it."""

    name: ClassVar[str] = "xnnpack"
    summary: ClassVar[str] = "ExecuTorch with XNNPACK, the engine of phones"
    extra: ClassVar[str | None] = "executorch"
    packages: ClassVar[tuple[str, ...]] = ("executorch",)
    at_once: ClassVar[int] = 24
    precisions: ClassVar[tuple[Precision, ...]] = ("fp32", "fp16", "int8")

    def _compile(self, module: nn.Module, inputs: Sequence[Tensor], threads: int) -> Compiled:
        packed = self._pack(module, inputs)
        with self.running(threads):
            compiled = _Method(packed, inputs, threads, lambda: self._traced(module, inputs))
        compiled.packed = packed
        return compiled

    def _pack(self, module: nn.Module, inputs: Sequence[Tensor]) -> bytes:
        from .executorch_programs import lowered_in_haste

        return bytes(lowered_in_haste(self._traced(module, inputs)).to_executorch().buffer)

    def _pack_each(self, modules: Sequence[nn.Module], inputs: Sequence[Sequence[Tensor]]) -> list[bytes]:
        from .executorch_programs import to_executorch_each

        return to_executorch_each(modules, [[*laid_out(given)] for given in inputs], quantized=self.precision == "int8")

    def _traced(self, module: nn.Module, inputs: Sequence[Tensor]) -> ExportedProgram:
        """A network as torch.export traces it, for inputs of these shapes; in int8, quantized."""
        program = trace(module, tuple(laid_out(inputs)))
        return quantized_program(program, self._quantization(inputs)) if self.precision == "int8" else program

    def _load(self, packed: bytes, inputs: Sequence[Tensor], threads: int) -> Compiled:
        with self.running(threads):
            return _Method(packed, inputs, threads)

    @contextmanager
    def running(self, threads: int) -> Iterator[None]:
        with quiet():  # both report on themselves
            from executorch.extension.pybindings import portable_lib

            if portable_lib._threadpool_get_thread_count() != threads:
                portable_lib._unsafe_reset_threadpool(threads)
        with super().running(threads):
            yield


def _operators(events: Sequence[Any]) -> list[Operator]:
    """Events of an ETDump; what a delegate did comes before the event of its call, as an operator does before its."""
    operators: list[Operator] = []
    pending: list[Any] = []
    for event in events:
        if not event.name.startswith(_WRAPPERS):
            pending.append(event)
            continue
        origins = [(key, _path(stack)) for key, stack in (event.module_hierarchy or {}).items()]
        kinds = [_kind(one) for one in pending]
        for index, (one, kind) in enumerate(zip(pending, kinds, strict=True)):
            times = one.perf_data.raw[1:]
            if one.is_delegated_op:
                layer = _delegated(index, [_ATEN.get(each) for each in kinds], origins)
            else:
                layer = origins[0][1] if origins else None
            operators.append(Operator(one.name, kind, sum(times) / len(times), layer))
        pending = []
    return operators


def _delegated(index: int, kinds: Sequence[str | None], origins: Sequence[tuple[str, str | None]]) -> str | None:
    """Layer of a kernel: of the graph's operation at its place among those of its kind, where they are as many.

    The record may name operations that others compute; then it is their layer where they all have the same.
    """
    kind = kinds[index]
    layers = [path for key, path in origins if kind is not None and key.startswith(f"aten_{kind}_")]
    if len(layers) == kinds.count(kind):
        return layers[kinds[:index].count(kind)]
    return layers[0] if len(set(layers)) == 1 else None


def _kind(event: Any) -> str:
    """`Convolution` of `Convolution (NHWC, F32) IGEMM #1`, `mean.out` of `native_call_mean.out`."""
    return re.split(r" [(#]", event.name.removeprefix("native_call_"))[0].strip()


def _path(stack: Any) -> str | None:
    """Dotted path of the module last entered."""
    paths = [path for path, _ in (stack or {}).values()]
    return paths[-1] or None if paths else None
