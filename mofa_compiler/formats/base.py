"""What a file format is: it writes a traced network, and runs what it wrote."""

from __future__ import annotations

import re
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from ..base.errors import not_installed
from ..base.precision import Precision
from ..graph.call_spec import CallSpec, tensor_leaves

Runner: TypeAlias = Callable[[Sequence[Tensor]], Sequence[Tensor]]
"""All tensors that the network takes, in order, to all that it returns"""


@dataclass(frozen=True)
class Use:
    """One operator call in an exported file.

    Attributes:
        kind: the operator, as the format names it.
        layer: dotted path of the module that calls it; empty for the network's own forward, None where not known.
        backend: what runs it, where a file has several: `xnnpack` or `portable`.
    """

    kind: str
    layer: str | None = None
    backend: str | None = None


@dataclass(frozen=True)
class Quantization:
    """What a network is quantized by.

    Attributes:
        examples: its inputs, whose values tell the ranges of all others.
        floating: dotted paths of layers that stay in float.
    """

    examples: Sequence[Sequence[Any]]
    floating: tuple[str, ...] = ()

    def stays(self, path: str | None) -> bool:
        """Whether a layer, or one that it lies in, stays in float."""
        return path is not None and any(path == one or path.startswith(f"{one}.") for one in self.floating)


@dataclass(frozen=True)
class Source:
    """A network to be written.

    Attributes:
        module: in eval mode.
        call: example tensors, at the size that is written where the file has one size only.
        program: the network traced by torch.export; None for formats that trace for themselves.
        dynamic: whether sizes may differ from those of `call`.
        free: traced with `any_size`, under which it has to be written, too.
        note: a sentence on what was done to the network before.
        quantization: what it is quantized by in int8; in fp16 and bf16 the module is converted already.
    """

    module: nn.Module
    call: CallSpec
    program: ExportedProgram | None
    dynamic: bool = False
    free: bool = False
    note: str = ""
    quantization: Quantization | None = None


@dataclass
class Written:
    """What a format says of a file that it wrote: every operator call, and sentences on what is remarkable."""

    uses: list[Use]
    notes: list[str] = field(default_factory=list)


class Format(ABC):
    """A file format. Imports what it needs when it is used, so that listing formats costs nothing."""

    name: ClassVar[str]
    title: ClassVar[str]
    """As text names it"""
    suffixes: ClassVar[tuple[str, ...]]
    """Of the file, and of those that have to lie beside it"""
    extra: ClassVar[str | None] = None
    """The optional extra of mofa-compiler that installs what it needs"""
    packages: ClassVar[tuple[str, ...]] = ()
    traced: ClassVar[bool] = True
    """Whether it is written from what torch.export traced"""
    bounded: ClassVar[bool] = False
    """Whether dynamic sizes need an upper bound; the batch is fixed then, too"""
    precisions: ClassVar[tuple[Precision, ...]] = ("fp32",)
    """That files can have"""
    merges: ClassVar[bool] = False
    """Whether it merges batch normalizations itself, which may go wrong"""

    def missing(self) -> str | None:
        """Why it cannot be written here and what to do about that, in one line; None where it can."""
        return not_installed(self.packages, self.extra)

    @abstractmethod
    def write(self, source: Source, file: Path) -> Written:
        """Write a network. Raises whatever the exporter raises."""

    @abstractmethod
    def open(self, file: Path) -> Runner:
        """The network in a file."""


def module_path(node: fx.Node) -> str | None:
    """Dotted path of the module in which a traced call stands; None where the tracer does not know."""
    stack = [path for path, _ in module_stack(node)]
    return stack[-1] if stack else None


def module_stack(node: fx.Node) -> list[tuple[str, str]]:
    """Dotted path and class name of the modules around a traced call, outermost first."""
    found = []
    for entry in (node.meta.get("nn_module_stack") or {}).values():
        path, kind = entry[0], entry[1]
        if not path.startswith("_"):  # what torch.export's own passes put there
            name = kind if isinstance(kind, str) else kind.__qualname__
            found.append((path, name.rpartition(".")[2]))
    return found


def operator_calls(graph: fx.Graph) -> list[fx.Node]:
    """The calls in a traced graph that compute tensors; sizes and the taking apart of tuples are left out."""

    def computes(node: fx.Node) -> bool:
        value = node.meta.get("val")
        values = value if isinstance(value, (list, tuple)) else [value]
        return any(isinstance(one, Tensor) for one in values)

    calls = (node for node in graph.nodes if node.op == "call_function")
    return [node for node in calls if getattr(node.target, "__name__", "") != "getitem" and computes(node)]


def operator_name(node: fx.Node) -> str:
    """`aten.mean.dim` as `mean.dim`; a `.default` is left out."""
    target = node.target
    name = target.name() if hasattr(target, "name") and callable(target.name) else getattr(target, "__name__", "?")
    return str(name).rpartition("::")[2].removesuffix(".default")


def reason(error: BaseException) -> str:
    """What lies behind an exporter's error, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = _BOILERPLATE.sub("", " ".join(str(error).split())) or "no message"
    return f"{type(error).__name__}: {textwrap.shorten(text, 280, placeholder=' ...').rstrip('.')}"


_BOILERPLATE = re.compile(
    r"^Check '[^']*' failed at \S+ FrontEnd API failed with \w+: (Model wasn't fully converted\. )?(Summary: )?(-- )?"
    r"|For more information, run with TORCH_LOGS=\S+ (- )?"
)


def tensors(call: CallSpec) -> list[Tensor]:
    """All tensors of a call, in order."""
    return list(tensor_leaves([*call.args, *call.kwargs.values()]))


def describe(path: str, kind: str) -> str:
    """What messages call a module."""
    return f"layer {path!r} ({kind})" if path else f"{kind}'s own forward"
