"""A staged model-transformation compiler for U-Net-like PyTorch networks.

The names below are imported on first use, so that `mofa --help` does not wait for torch.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import runtime as runtime
    from .bundle import load
    from .compiler import Result, apply
    from .distillation import recover
    from .frontend import capture
    from .frontier import front
    from .graph.program import Program
    from .reproduce.replay import replay
    from .reproduce.verify import Verification, verify
    from .result.quality import Bound
    from .rewriting.roadmap import Roadmap

    __version__: str

__all__ = [
    "Bound",
    "Program",
    "Result",
    "Roadmap",
    "Verification",
    "apply",
    "capture",
    "front",
    "load",
    "recover",
    "replay",
    "verify",
]

_HOMES = {
    "Bound": "result.quality",
    "Program": "graph.program",
    "Result": "compiler",
    "Roadmap": "rewriting.roadmap",
    "Verification": "reproduce.verify",
    "apply": "compiler",
    "capture": "frontend",
    "front": "frontier",
    "load": "bundle",
    "recover": "distillation",
    "replay": "reproduce.replay",
    "verify": "reproduce.verify",
}


if not TYPE_CHECKING:  # a type checker knows the names above, and that there are no others

    def __getattr__(name: str) -> Any:
        if name == "runtime":
            return importlib.import_module(f"{__name__}.runtime")
        if name == "__version__":
            return importlib.metadata.version("mofa-compiler")
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, "__version__"})
