"""PyTorch itself: eager with either memory layout, and compiled by Inductor."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...errors import EngineError, one_line
from ..engine import Compiled, Engine, flat


class _Module(Compiled):
    def __init__(self, module: Any, inputs: Sequence[Tensor], memory_format: torch.memory_format):
        self._module, self._format = module, memory_format
        self._inputs = [self._laid_out(x) for x in inputs]

    def run(self) -> None:
        self._module(*self._inputs)

    def outputs(self, inputs: Sequence[Tensor] | None = None) -> list[Tensor]:
        given = self._inputs if inputs is None else [self._laid_out(x) for x in inputs]
        with torch.inference_mode():
            return [tensor.clone() for tensor in flat(self._module(*given))]

    def _laid_out(self, x: Tensor) -> Tensor:
        return x.contiguous(memory_format=self._format) if x.dim() == 4 else x


class Eager(Engine):
    """PyTorch as it is."""

    name: ClassVar[str] = "eager"
    summary: ClassVar[str] = "PyTorch, operation by operation"
    memory_format: ClassVar[torch.memory_format] = torch.contiguous_format

    def compile(self, module: nn.Module, inputs: Sequence[Tensor], threads: int = 1) -> Compiled:
        copied = copy.deepcopy(module).eval().to(memory_format=self.memory_format)  # type: ignore[call-overload]
        return _Module(copied, inputs, self.memory_format)


class ChannelsLast(Eager):
    """PyTorch with (N, H, W, C) in memory."""

    name: ClassVar[str] = "channels-last"
    summary: ClassVar[str] = "PyTorch, operation by operation, channels last in memory"
    memory_format: ClassVar[torch.memory_format] = torch.channels_last


class Inductor(Engine):
    """torch.compile with its own backend."""

    name: ClassVar[str] = "inductor"
    summary: ClassVar[str] = "torch.compile; generates C++ on a CPU, Triton kernels on a GPU"

    def missing(self) -> str | None:
        return None if shutil.which("c++") or shutil.which("g++") else "there is no C++ compiler: install g++"

    def compile(self, module: nn.Module, inputs: Sequence[Tensor], threads: int = 1) -> Compiled:
        torch._dynamo.reset()
        copied = copy.deepcopy(module).eval()
        compiled = _Module(torch.compile(copied, dynamic=False), inputs, torch.contiguous_format)
        try:
            with self.running(threads):
                compiled.run()
        except Exception as error:
            raise EngineError(f"inductor cannot compile {type(module).__name__}: {one_line(error)}") from error
        return compiled
