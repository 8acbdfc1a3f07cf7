"""Where an exported file goes."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from ..base.errors import ExportError
from ..formats.base import Format
from ..formats.registry import find


def destinations(
    bundle_or_module: str | Path | nn.Module, kind: Format, destination: str | Path | None, overwrite: bool
) -> tuple[Path, ...]:
    """The files to write; the first is the one that is loaded.

    Raises:
        ExportError: one is there already, has no folder to be in, or the name of another kind of file, a bundle's own
            for instance.
    """
    bundle = None if isinstance(bundle_or_module, nn.Module) else Path(bundle_or_module).expanduser().resolve()
    if destination is None:
        if bundle is None:
            raise ExportError(
                "there is no bundle whose name the file could have: pass destination", code="needs-option"
            )
        destination = bundle.with_name(f"{bundle.name}{kind.suffixes[0]}")
    first = Path(destination).expanduser()
    if first.suffix != kind.suffixes[0]:
        raise ExportError(f"{first}: a file of {kind.title} ends in {kind.suffixes[0]}", code="wrong-kind")
    if not first.parent.is_dir():
        raise ExportError(f"cannot write {first}: there is no folder {first.parent}", code="not-found")
    files = tuple(first.with_suffix(suffix) for suffix in kind.suffixes)
    for file in files:
        if file.is_dir():
            raise ExportError(f"{file} is a folder: choose another file", code="wrong-kind")
        if file.exists() and not overwrite:
            raise ExportError(
                f"{file} exists: --overwrite (in Python: overwrite=True) replaces it, or choose another file",
                code="exists",
            )
    return files


def named_after(module: nn.Module, to: str) -> Path:
    """The file that a network of no bundle is written to where none is named: its class, in the working folder.

    Raises:
        ExportError: the format is unknown or not installed.
    """
    return Path(f"{type(module).__name__}{find(to).suffixes[0]}")
