"""Output formats: each renders an `Outcome`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, TextIO

from rich.console import Console

from ..finding import Outcome
from .context import Context, Renderer

if TYPE_CHECKING:
    from ..rule import Rule

__all__ = ["FORMATS", "Context", "emit", "render", "renderer"]

FORMATS: Mapping[str, str] = {
    "full": "full:render",
    "concise": "concise:render",
    "json": "data:render",
    "json-lines": "data:render_lines",
    "github": "github:render",
    "gitlab": "gitlab:render",
    "junit": "junit:render",
    "sarif": "sarif:render",
    "markdown": "markdown:render",
}
"""Where the `Renderer` of a format is; imported when it is asked for."""

_PLAIN = str.maketrans({"−": "-", "×": "x", "…": "...", "→": "->", "Δ": "change in", "\u200b": ""})


def render(
    name: str,
    outcome: Outcome,
    rules: Mapping[str, type[Rule]],
    root: Path,
    *,
    config: Path | None = None,
    stream: TextIO | None = None,
    environ: Mapping[str, str] = os.environ,
) -> str:
    """What `--output-format NAME` prints.

    Args:
        name: one of `FORMATS`.
        rules: all that there are, by code.
        root: folder that files are named relative to: of the repository or, without one, of the configuration.
        config: the configuration file, where there is one.
        stream: what the text will be written to: gives `full` its width and decides about colours, as rich does
            (`NO_COLOR`, `FORCE_COLOR`, `TERM`, `COLUMNS`); None for a file.
        environ: `GITHUB_STEP_SUMMARY` there makes `github` append to that file.
    """
    screen = Console(file=stream, _environ=environ) if stream else None
    job_summary = environ.get("GITHUB_STEP_SUMMARY")
    context = Context(
        rules,
        root,
        config,
        width=screen.width if screen else 100,
        colour=bool(screen and screen.color_system),
        monochrome=bool(screen and screen.no_color),
        summary=Path(job_summary) if job_summary else None,
    )
    return renderer(name)(outcome, context)


def renderer(name: str) -> Renderer:
    """What renders the format NAME."""
    function: Renderer = resolve_name(f"{__name__}.{FORMATS[name]}")
    return function


def emit(text: str, stream: TextIO | None = None) -> None:
    """Write a result to stdout or another stream; what its encoding lacks is written otherwise, or escaped."""
    stream = stream or sys.stdout
    encoding = stream.encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.translate(_PLAIN).encode(encoding, "backslashreplace").decode(encoding)
    stream.write(text)
    stream.flush()
