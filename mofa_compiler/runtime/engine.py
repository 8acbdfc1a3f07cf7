"""What an engine is: it compiles a network for inputs of fixed shapes, runs it, and says what it is."""

from __future__ import annotations

import copy
import importlib.metadata
import platform
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Self, TypeAlias

import torch
from torch import Tensor, nn

from ..base.errors import EngineError, not_installed, one_line, source_line
from ..base.precision import Precision
from ..base.torch_state import own_randomness
from ..base.torch_state import threads as torch_threads
from ..formats.base import Quantization
from ..numerics.half import HALVES, in_half
from .quiet import quiet

PROFILED_RUNS = 10


@dataclass(frozen=True)
class Operator:
    """One operation of a compiled network, as the engine itself names it.

    Attributes:
        name: what it is called in the engine's profile.
        kind: the operation, such as `Conv`.
        ms: milliseconds that it took in one run; None where the engine does not tell.
        layer: dotted path of the layer that it comes from; None where that is not known.
    """

    name: str
    kind: str
    ms: float | None = None
    layer: str | None = None


class Compiled(ABC):
    """A network that an engine has compiled for the inputs that it was given then.

    Attributes:
        packed: what `Engine.load` makes it of; None where it was compiled without.
    """

    packed: bytes | None = None

    @abstractmethod
    def run(self) -> None:
        """Compute the outputs for those inputs once; this is what is timed."""

    @abstractmethod
    def outputs(self, inputs: Sequence[Tensor] | None = None) -> list[Tensor]:
        """The network's outputs, for other inputs of the same shapes if there are any."""

    def profile(self) -> list[Operator] | None:
        """Every operation with its time, in execution order; None where the engine cannot tell.

        Profiling takes time of its own: what the operations take together is more than a run takes.
        """
        return None


Given: TypeAlias = tuple[nn.Module, Sequence[Tensor]]
"""A network and its inputs"""


class Engine(ABC):
    """Something that runs networks. Imports what it needs when it compiles, so that listing engines costs nothing."""

    name: ClassVar[str]
    summary: ClassVar[str]
    extra: ClassVar[str | None] = None
    """The optional extra of mofa-compiler that installs it"""
    packages: ClassVar[tuple[str, ...]] = ("torch",)
    """Distributions that it needs; the first one's version is the engine's"""
    device: ClassVar[str] = "cpu"
    at_once: ClassVar[int] = 1
    """How many networks `prepare` packs together; more than one where `_pack_each` is written"""
    precisions: ClassVar[tuple[Precision, ...]] = ("fp32",)
    """That it can compute in"""
    converted: ClassVar[Collection[Precision]] = HALVES.keys()
    """Those for which a network's weights are converted; the engine does it itself for others"""
    precision: Precision = "fp32"
    """That it computes in"""
    quantization: Quantization | None = None
    """In int8: by what networks are quantized; by the inputs that they are compiled for unless given"""

    def missing(self) -> str | None:
        """Why it cannot run here and what to do about that, in one line; None where it can."""
        return not_installed(self.packages, self.extra)

    def version(self) -> str:
        """Version of what compiles and runs."""
        return importlib.metadata.version(self.packages[0])

    def processor(self) -> str:
        """What it runs on."""
        return processor()

    def at(self, precision: Precision) -> Self:
        """The same engine, computing in this precision.

        Raises:
            EngineError: it has no such precision; says which engines have.
        """
        if precision == self.precision:
            return self
        if precision not in self.precisions:
            raise EngineError(
                f"{self.name} does not compute in {precision}, but in {', '.join(self.precisions)}: `mofa engines` "
                "lists what the others do",
                code="unknown-option",
            )
        return self._with(precision=precision)

    def calibrated(self, examples: Sequence[Sequence[Tensor]], floating: Sequence[str] = ()) -> Self:
        """The same engine for networks that take inputs like these, by whose values they are quantized in int8.

        Args:
            examples: positional inputs, of the shapes that networks are compiled for.
            floating: dotted paths of layers that stay in float.
        """
        return self._with(quantization=Quantization(examples, tuple(floating)))

    def _with(self, **changed: Any) -> Self:
        other = copy.copy(self)
        vars(other).pop("emulated", None)
        vars(other).update(changed)
        return other

    @cached_property
    def emulated(self) -> str | None:
        """Why times say nothing about its precision here, in a few words; None where they do."""
        if self.precision not in HALVES or self.device != "cpu":
            return None
        if self.precision not in self.converted:
            return None if self._differs_from_fp32() else "it computes in fp32 on this processor"
        return None if _computes(self.precision) else f"this processor has no arithmetic in {self.precision}"

    def _differs_from_fp32(self) -> bool:
        """Whether half precision shows in the outputs."""
        with own_randomness(seed=0):
            layer, x = nn.Conv2d(16, 16, 3), torch.rand(1, 16, 16, 16)
        (half,), (full,) = (one.compile(layer, [x]).outputs() for one in (self, self._with(precision="fp32")))
        return not torch.equal(half, full)

    def compile(self, module: nn.Module, inputs: Sequence[Tensor], threads: int = 1) -> Compiled:
        """Compile a network in eval mode; it is not modified.

        Args:
            module: what takes `inputs` as positional arguments.
            inputs: tensors of the shapes and dtypes that it is compiled for.
            threads: how many it may use.

        Raises:
            EngineError: the engine is not installed, or does not take the network.
        """
        with self._in_one_line(module):
            compiled = self._compile(self._copied(module), inputs, threads)
            with self.running(threads):
                compiled.run()  # some find only now what they cannot do
        return compiled

    def pack(self, module: nn.Module, inputs: Sequence[Tensor]) -> bytes:
        """The network in the form that the engine loads, as the contents of a file.

        Raises:
            EngineError: the engine is not installed, or does not take the network.
        """
        with self._in_one_line(module):
            return self._pack(self._copied(module), inputs)

    def load(self, packed: bytes, inputs: Sequence[Tensor], threads: int = 1) -> Compiled:
        """The compiled network of what `pack` wrote.

        Raises:
            EngineError: the engine is not installed, or does not take the network.
        """
        with self._in_one_line("the packed network"):
            return self._load(packed, inputs, threads)

    def prepare(self, networks: Sequence[Given], threads: int = 1) -> list[Callable[[], Compiled]]:
        """Many small networks, each with its inputs, made ready together: cheaper than to `compile` each of them.

        Returns, for each, what loads it when it is called, and raises what `compile` would raise. An engine that
        cannot pack several at once compiles it only then.
        """
        ready: list[Callable[[], Compiled]] = []
        for start in range(0, len(networks), self.at_once):
            ready += self._prepared(networks[start : start + self.at_once], threads)
        return ready

    def _prepared(self, networks: Sequence[Given], threads: int) -> list[Callable[[], Compiled]]:
        if len(networks) == 1:
            (alone,) = networks
            return [partial(self.compile, *alone, threads)]
        modules, inputs = zip(*networks, strict=True)
        try:
            with self._in_one_line(f"{len(modules)} networks"):
                packed = self._pack_each([self._copied(module) for module in modules], inputs)
        except EngineError:  # of one of them: halves tell of which
            middle = len(networks) // 2
            return self._prepared(networks[:middle], threads) + self._prepared(networks[middle:], threads)
        return [partial(self._started, *one, threads) for one in zip(modules, packed, inputs, strict=True)]

    def _started(self, module: nn.Module, packed: bytes, inputs: Sequence[Tensor], threads: int) -> Compiled:
        with self._in_one_line(module):
            compiled = self._load(packed, inputs, threads)
            with self.running(threads):
                compiled.run()
        return compiled

    @contextmanager
    def running(self, threads: int) -> Iterator[None]:
        """The conditions under which its networks are timed, for all of them alike."""
        with torch_threads(threads), torch.inference_mode():
            yield

    def _compile(self, module: nn.Module, inputs: Sequence[Tensor], threads: int) -> Compiled:
        packed = self._pack(module, inputs)
        compiled = self._load(packed, inputs, threads)
        compiled.packed = packed
        return compiled

    @abstractmethod
    def _pack(self, module: nn.Module, inputs: Sequence[Tensor]) -> bytes:
        """`pack`, for a copy that may be modified; what it raises is translated."""

    def _pack_each(self, modules: Sequence[nn.Module], inputs: Sequence[Sequence[Tensor]]) -> list[bytes]:
        """`_pack` of several, for engines that have `at_once` above 1."""
        return [self._pack(module, given) for module, given in zip(modules, inputs, strict=True)]

    @abstractmethod
    def _load(self, packed: bytes, inputs: Sequence[Tensor], threads: int) -> Compiled:
        """`load`; what it raises is translated."""

    def _copied(self, module: nn.Module) -> nn.Module:
        copied = copy.deepcopy(module).eval().to(self.device)
        return in_half(copied, self.precision) if self.precision in self.converted else copied

    def _quantization(self, inputs: Sequence[Any]) -> Quantization:
        return self.quantization or Quantization([inputs])

    @contextmanager
    def _in_one_line(self, what: nn.Module | str) -> Iterator[None]:
        """Compile without chatter, and say what went wrong in a line."""
        if why := self.missing():
            raise EngineError(f"the engine {self.name} cannot run here: {why}", code="not-installed")
        name = what if isinstance(what, str) else type(what).__name__
        try:
            with quiet():
                yield
        except EngineError:
            raise
        except Exception as error:
            raise EngineError(
                f"{self.name} does not take {name}: {one_line(error)}{source_line(error)}", code="wrong-input"
            ) from error


def processor() -> str:
    """Model name of the CPU, as far as the operating system tells."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in ("model name", "Hardware"):
                return value.strip()
    return platform.processor() or platform.machine()


def _computes(precision: Precision) -> bool:
    """Whether the CPU has instructions for it, as far as the operating system tells."""
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return True
    flags = set(info.read_text(encoding="utf-8", errors="replace").split())
    return bool(flags & _INSTRUCTIONS[precision])


_INSTRUCTIONS: dict[Precision, set[str]] = {
    "fp16": {"avx512_fp16", "amx_fp16", "fphp", "asimdhp"},
    "bf16": {"avx512_bf16", "amx_bf16", "bf16"},
}
"""Flags of x86 and of ARM"""


def flat(value: Any) -> list[Tensor]:
    """All tensors that a network returned."""
    from ..graph.call_spec import tensor_leaves

    return list(tensor_leaves(value))
