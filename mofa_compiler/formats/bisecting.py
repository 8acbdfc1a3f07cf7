"""The operator at fault: the first of a traced graph with which an engine fails, or differs from the network.

What an engine does with a file says nothing of the layer. So the graph is cut behind an operator, and what is before
the cut is written, run and compared as a network of its own; halving finds the first cut that fails as the whole does.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from ..graph.call_spec import CallSpec
from .base import Format, Source, describe, module_stack, operator_calls, operator_name
from .comparing import DifferenceError, compare
from .observing import observe
from .torch_export import any_size, bounds, calm, trace

_SECONDS = 60.0
"""No further cut is tried after so long"""


@dataclass(frozen=True)
class Culprit:
    """What fails: `operator` of the module at `path`, of class `kind`; or, if time ran out, one from there to `until`.

    `path` is empty for the network's own forward.
    """

    path: str
    kind: str
    operator: str
    until: str = ""

    def __str__(self) -> str:
        last = f" or one behind it, up to {self.until}" if self.until else ""
        return f"{describe(self.path, self.kind)}, its {self.operator}{last}"


def culprit(
    kind: Format, source: Source, calls: Sequence[CallSpec], stage: str, tell: Callable[[str], None] = lambda _: None
) -> Culprit | None:
    """The first operator with which a format fails; None where the whole graph, taken so, does not.

    Args:
        kind: the format.
        source: the traced network that it fails on.
        calls: what it is compared at.
        stage: where it fails: `write`, or as in `DifferenceError`.
        tell: told what is tried.
    """
    assert source.program is not None
    module = source.program.module()
    assert isinstance(module, fx.GraphModule)
    nodes = operator_calls(module.graph)
    start, low, high = time.monotonic(), 0, len(nodes)
    name = type(source.module).__name__

    def fails(count: int) -> bool:
        tell(_described(nodes[count - 1], name))
        return _stage(kind, source, _cut(module, nodes[count - 1]), calls) == stage

    while high - low > 1 and time.monotonic() - start < _SECONDS:
        middle = (low + high) // 2
        low, high = (low, middle) if fails(middle) else (middle, high)
    if not nodes or (high == len(nodes) and not fails(high)):
        return None
    first, last = nodes[low], nodes[high - 1]
    path, inner = _place(first, name)
    return Culprit(path, inner, operator_name(first), _described(last, name) if last is not first else "")


def _place(node: fx.Node, name: str) -> tuple[str, str]:
    stack = module_stack(node)
    return stack[-1] if stack and stack[-1][0] else ("", name)


def _described(node: fx.Node, name: str) -> str:
    return f"{operator_name(node)} of {describe(*_place(node, name))}"


def _cut(module: fx.GraphModule, last: fx.Node) -> fx.GraphModule:
    """What is computed up to and with one node; returned is all that is read behind it, and itself."""
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in module.graph.nodes:
        if node.op not in ("call_module", "output"):  # such a call checks the inputs' sizes
            copies[node] = graph.node_copy(node, lambda argument: copies[argument])
        if node is last:
            break
    computed = [node for node in copies if node.op == "call_function" and isinstance(node.meta.get("val"), Tensor)]
    graph.output(tuple(copies[node] for node in computed if node is last or any(u not in copies for u in node.users)))
    graph.eliminate_dead_code()
    return fx.GraphModule(module, graph)


def _stage(kind: Format, source: Source, module: fx.GraphModule, calls: Sequence[CallSpec]) -> str | None:
    """Where a format fails on a part of a network; None where it does not."""
    assert source.program is not None
    call, others = _flat(source.call), [_flat(one) for one in calls]
    try:
        with any_size() if source.dynamic else nullcontext():
            program = trace(module, call.args, {}, _shapes(source.program, call) if source.dynamic else None)
    except Exception:  # the part cannot be cut off there, which says nothing of the format
        return None
    try:
        with calm(), any_size() if source.dynamic else nullcontext(), tempfile.TemporaryDirectory() as folder:
            file = Path(folder, f"part{kind.suffixes[0]}")
            kind.write(Source(module, call, program, source.dynamic, source.free), file)
            compare(kind, file, module, others, together=False)
    except DifferenceError as error:
        return error.stage
    except Exception:  # exporters raise anything
        return "write"
    return None


def _flat(call: CallSpec) -> CallSpec:
    return CallSpec(tuple(pytree.tree_leaves((call.args, dict(call.kwargs)))))


def _shapes(program: ExportedProgram, call: CallSpec) -> tuple[Any, ...]:
    """The sizes that differ, as torch.export is told them: those of the whole network's inputs."""
    known = iter(bounds(program))
    return tuple(_dimensions(next(known)) if isinstance(leaf, Tensor) else None for leaf in call.args)


def _dimensions(sizes: Sequence[int | tuple[int, int | None]]) -> dict[int, Any]:
    open_ = {place: size for place, size in enumerate(sizes) if not isinstance(size, int)}
    return {place: Dim.DYNAMIC(min=low, max=high) for place, (low, high) in open_.items()}


@dataclass(frozen=True)
class Fault:
    """A module that fails alone, and none inside it does.

    Attributes:
        path: dotted, empty for the network itself.
        kind: its class.
        error: what the exporter raised for it.
    """

    path: str
    kind: str
    error: Exception

    def __str__(self) -> str:
        return describe(self.path, self.kind)


def locate(
    module: nn.Module,
    call: CallSpec,
    attempt: Callable[[nn.Module, str], None],
    error: Exception,
    tell: Callable[[str], None] = lambda _: None,
) -> Fault:
    """Where an export fails.

    Args:
        module: the network, which was refused.
        call: tensors that it takes.
        attempt: exports one module of it, of the path given, and raises if that fails.
        error: what was raised for the whole network.
        tell: told the path of every module that is tried.
    """
    paths = list(observe(module, call, keep_calls=True).calls)
    modules = dict(module.named_modules())
    fault = Fault("", type(module).__name__, error)
    while (deeper := _failing(fault.path, paths, modules, attempt, tell)) is not None:
        fault = deeper
    return fault


def _failing(
    parent: str,
    paths: list[str],
    modules: Mapping[str, nn.Module],
    attempt: Callable[[nn.Module, str], None],
    tell: Callable[[str], None],
) -> Fault | None:
    """The first of the modules called right below `parent` that fails alone."""
    prefix = f"{parent}." if parent else ""
    below = [path for path in paths if path != parent and path.startswith(prefix)]
    top = [path for path in below if not any(path.startswith(f"{other}.") for other in below)]
    for path in top:
        tell(path)
        try:
            attempt(modules[path], path)
        except Exception as error:  # exporters raise anything
            return Fault(path, type(modules[path]).__name__, error)
    return None
