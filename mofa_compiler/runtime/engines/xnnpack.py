"""ExecuTorch with XNNPACK: what ships to phones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

from torch import Tensor, nn

from ...export.executorch import to_executorch
from ..engine import Compiled, Engine


class _Method(Compiled):
    def __init__(self, program: bytes, inputs: Sequence[Tensor]):
        from executorch.runtime import Runtime

        self._program = Runtime.get().load_program(program)  # has to live as long as its method
        self._method = self._program.load_method("forward")
        self._inputs = [x.contiguous() for x in inputs]

    def run(self) -> None:
        self._method.execute(self._inputs)

    def outputs(self, inputs: Sequence[Tensor] | None = None) -> list[Tensor]:
        given = self._inputs if inputs is None else [x.contiguous() for x in inputs]
        return [value.clone() for value in self._method.execute(given)]


class Xnnpack(Engine):
    """ExecuTorch, what XNNPACK takes delegated to it."""

    name: ClassVar[str] = "xnnpack"
    summary: ClassVar[str] = "ExecuTorch with XNNPACK, the engine of phones"
    extra: ClassVar[str | None] = "executorch"
    packages: ClassVar[tuple[str, ...]] = ("executorch",)

    def compile(self, module: nn.Module, inputs: Sequence[Tensor], threads: int = 1) -> Compiled:
        program = to_executorch(module, inputs)
        with self.running(threads):
            return _Method(program, inputs)

    @contextmanager
    def running(self, threads: int) -> Iterator[None]:
        from executorch.extension.pybindings import portable_lib

        before = portable_lib._threadpool_get_thread_count()
        if before != threads:
            portable_lib._unsafe_reset_threadpool(threads)
        with super().running(threads):
            yield
