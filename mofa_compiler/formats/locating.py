"""The layer at fault: the smallest module that an exporter refuses when it is given nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from ..graph.call_spec import CallSpec
from .base import describe
from .observing import observe


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
