"""What the shell completes; nothing here imports torch, for which nobody wants to wait at a tab."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.metadata import entry_points
from pathlib import Path

from ..base.precision import PRECISIONS

_PACKAGE = Path(__file__).resolve().parents[1]

ENGINES = (
    *("eager", "channels-last", "inductor", "onnxruntime", "xnnpack", "openvino", "mnn"),
    *("cuda", "cuda-inductor"),
)
"""Names of `mofa_compiler.runtime.engines`, whose import takes torch's time"""

EXPORT_FORMATS = ("onnx", "pt2", "executorch", "openvino", "torchscript")
"""Names of `mofa_compiler.formats.registry`, likewise"""

LINT_FORMATS = ("full", "concise", "json", "json-lines", "github", "gitlab", "junit", "sarif", "markdown")


def roadmaps(incomplete: str) -> list[str]:
    """Presets; without one that begins so, the shell offers files."""
    return _beginning(incomplete, (file.stem for file in (_PACKAGE / "rewriting" / "roadmaps").glob("*.toml")))


def engines(incomplete: str) -> list[str]:
    """Engines, also behind a comma: `eager,xnn`."""
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in _beginning(last, ENGINES)]


def precisions(incomplete: str) -> list[str]:
    """What engines compute in."""
    return _beginning(incomplete, PRECISIONS)


def passes(incomplete: str) -> list[str]:
    """Installed passes, also other packages'."""
    return _beginning(incomplete, entry_points(group="mofa_compiler.passes").names)


def rules(incomplete: str) -> list[str]:
    """The linter's rules; their codes stand in their source."""
    sources = (file.read_text(encoding="utf-8") for file in (_PACKAGE / "lint" / "rules").glob("*.py"))
    codes = (code for source in sources for code in re.findall(r'^    code\b.* = "(MOFA\d+)"$', source, re.MULTILINE))
    return _beginning(incomplete.upper(), codes)


def export_formats(incomplete: str) -> list[str]:
    """What `mofa export` writes."""
    return _beginning(incomplete, EXPORT_FORMATS)


def lint_formats(incomplete: str) -> list[str]:
    """What `mofa lint` prints."""
    return _beginning(incomplete, LINT_FORMATS)


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if name.startswith(incomplete))
