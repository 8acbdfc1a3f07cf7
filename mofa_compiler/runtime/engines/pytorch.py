"""PyTorch itself: eager with either memory layout, and compiled by Inductor; on the CPU or on a GPU."""

from __future__ import annotations

import io
import itertools
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...base.precision import Precision
from ...graph.interpreter import Interpreter
from ..engine import PROFILED_RUNS, Compiled, Engine, Operator, flat
from ..quiet import quiet

_LAYER = "layer:"
_COUNTER = itertools.count()


class _Module(Compiled):
    """A module, or what torch.compile made of one, that lies on `engine`'s device."""

    def __init__(self, call: Callable[..., Any], inputs: Sequence[Tensor], engine: Eager, profiled: nn.Module | None):
        self._call, self._engine, self._profiled = call, engine, profiled
        self._wait = torch.cuda.synchronize if engine.device == "cuda" else None
        self._inputs = [self._laid_out(x) for x in inputs]

    def run(self) -> None:
        self._call(*self._inputs)
        if self._wait:
            self._wait()

    def outputs(self, inputs: Sequence[Tensor] | None = None) -> list[Tensor]:
        given = self._inputs if inputs is None else [self._laid_out(x) for x in inputs]
        with torch.inference_mode():
            return [tensor.to("cpu", copy=True) for tensor in flat(self._call(*given))]

    def profile(self) -> list[Operator] | None:
        """What the modules call, each with all that it calls in turn; not what runs on a GPU."""
        if self._profiled is None or self._wait:
            return None
        from torch.profiler import ProfilerActivity, profile

        marked = _Marked(self._profiled).run if isinstance(self._profiled, torch.fx.GraphModule) else self._profiled
        with quiet(), ExitStack() as stack, torch.inference_mode():
            self.run()
            for path, module in self._profiled.named_modules():
                if path:
                    _mark(module, path, stack)
            with profile(activities=[ProfilerActivity.CPU]) as profiler:
                for _ in range(PROFILED_RUNS):
                    marked(*self._inputs)
        return _operators(list(profiler.events() or ()))

    def _laid_out(self, x: Tensor) -> Tensor:
        x = x.to(self._engine.device)
        return x.contiguous(memory_format=self._engine.memory_format) if x.dim() == 4 else x


class Eager(Engine):
    """PyTorch as it is."""

    name: ClassVar[str] = "eager"
    summary: ClassVar[str] = "PyTorch, operation by operation"
    memory_format: ClassVar[torch.memory_format] = torch.contiguous_format
    precisions: ClassVar[tuple[Precision, ...]] = ("fp32", "fp16", "bf16")

    def _compile(self, module: nn.Module, inputs: Sequence[Tensor], threads: int) -> Compiled:
        laid_out = module.to(memory_format=self.memory_format)  # type: ignore[call-overload]
        return _Module(laid_out, inputs, self, laid_out)

    def _pack(self, module: nn.Module, inputs: Sequence[Tensor]) -> bytes:
        buffer = io.BytesIO()
        on_device = tuple(x.to(self.device) for x in inputs)
        torch.export.save(torch.export.export(module, on_device, strict=False), buffer)
        return buffer.getvalue()

    def _load(self, packed: bytes, inputs: Sequence[Tensor], threads: int) -> Compiled:
        return self._compile(torch.export.load(io.BytesIO(packed)).module(), inputs, threads)


class ChannelsLast(Eager):
    """PyTorch with (N, H, W, C) in memory."""

    name: ClassVar[str] = "channels-last"
    summary: ClassVar[str] = "PyTorch, operation by operation, channels last in memory"
    memory_format: ClassVar[torch.memory_format] = torch.channels_last


class Inductor(Eager):
    """torch.compile with its own backend."""

    name: ClassVar[str] = "inductor"
    summary: ClassVar[str] = "torch.compile; generates C++"

    def missing(self) -> str | None:
        return None if any(map(shutil.which, ("c++", "g++", "clang++"))) else "there is no C++ compiler: install g++"

    def _compile(self, module: nn.Module, inputs: Sequence[Tensor], threads: int) -> Compiled:
        return _Module(torch.compile(_of_its_own(module), dynamic=False), inputs, self, None)


class _OnGpu(Eager):
    device: ClassVar[str] = "cuda"

    def missing(self) -> str | None:
        if not torch.backends.cuda.is_built():  # type: ignore[no-untyped-call]
            return f"PyTorch {torch.__version__} was built without CUDA: pytorch.org/get-started says what to install"
        return None if torch.cuda.is_available() else "there is no GPU that CUDA can use"

    def processor(self) -> str:
        return torch.cuda.get_device_name()


class Cuda(_OnGpu):
    """PyTorch on a GPU."""

    name: ClassVar[str] = "cuda"
    summary: ClassVar[str] = "PyTorch, operation by operation, on a GPU"


class CudaInductor(_OnGpu, Inductor):
    """torch.compile on a GPU."""

    name: ClassVar[str] = "cuda-inductor"
    summary: ClassVar[str] = "torch.compile on a GPU; generates Triton kernels"


class _Marked(Interpreter):
    """Has the profiler see which layer an operation of the graph itself came from, as the tracer recorded it."""

    def run_node(self, n: torch.fx.Node) -> Any:
        paths = [path for path, _ in (n.meta.get("nn_module_stack") or {}).values()]
        if n.op != "call_function" or not paths:
            return super().run_node(n)
        with torch.autograd.profiler.record_function(_LAYER + paths[-1]):
            return super().run_node(n)


def _of_its_own(module: nn.Module) -> Callable[..., Any]:
    """A function that calls the module and has a code object of its own.

    torch.compile keeps what it compiled with the code object, and runs the ninth of one class's modules eagerly.
    """

    def call(*inputs: Tensor) -> Any:
        return module(*inputs)

    call.__code__ = call.__code__.replace(co_name=f"network_{next(_COUNTER)}")
    return call


def _mark(module: nn.Module, path: str, stack: ExitStack) -> None:
    """Have the profiler see where a module begins and ends."""
    open_ranges: list[ExitStack] = []

    def begin(*_: Any) -> None:
        open_ranges.append(ExitStack())
        open_ranges[-1].enter_context(torch.autograd.profiler.record_function(_LAYER + path))

    def end(*_: Any) -> None:
        open_ranges.pop().close()

    stack.callback(module.register_forward_pre_hook(begin).remove)
    stack.callback(module.register_forward_hook(end).remove)


def _operators(events: Sequence[Any]) -> list[Operator]:
    """The outermost operations of one run, their times the mean over all; every run has to have done the same."""
    found: list[tuple[str, str | None, float]] = []
    for event in sorted(events, key=lambda event: event.time_range.start):
        parent = event.cpu_parent
        if event.name.startswith(_LAYER) or (parent and not parent.name.startswith(_LAYER)):
            continue
        layer = parent.name.removeprefix(_LAYER) or None if parent else None
        found.append((event.name.removeprefix("aten::"), layer, event.cpu_time_total / 1e3))
    length = len(found) // PROFILED_RUNS
    runs = [found[start : start + length] for start in range(0, length * PROFILED_RUNS, length)] if length else []
    return [
        Operator(f"{same[0][0]}_{index}", same[0][0], sum(one[2] for one in same) / len(same), same[0][1])
        for index, same in enumerate(zip(*runs, strict=True))
    ]
