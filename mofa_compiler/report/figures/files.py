"""Figures as files: all of a file or nothing, and the same bytes every time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ...base.atomic_files import scratch_file
from ...base.errors import MofaError
from .style import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")


def save(make: Callable[[], Figure], path: Path) -> None:
    """Write the figure that `make` returns, all of it or nothing; the same figure gives the same bytes.

    Raises:
        MofaError: the file's ending names no format, or there is no such folder.
        OSError: the file cannot be written.
    """
    kind = check_format(path)
    if not path.parent.is_dir():
        raise MofaError(f"cannot write {path}: there is no folder {path.parent}")
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
    with style(), scratch_file(path) as scratch:
        make().savefig(scratch, format=kind, dpi=200, metadata=metadata)


def check_format(path: Path) -> str:
    """The format that a file's ending stands for.

    Raises:
        MofaError: there is no such format.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise MofaError(f"cannot plot to {path}: its name has to end in {', '.join('.' + name for name in FORMATS)}")
    return kind
