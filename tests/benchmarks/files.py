"""Files that benchmarks write: whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Replace a file's contents; it is written beside its place first, in a folder that is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        scratch.write_text(text, encoding="utf-8")
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def replace_block(path: Path, text: str, markers: tuple[str, str]) -> None:
    """Put text between two markers of a file, which stay.

    Raises:
        ValueError: the file does not have each marker once, in this order.
    """
    whole = path.read_text(encoding="utf-8")
    if [whole.count(marker) for marker in markers] != [1, 1] or whole.index(markers[0]) > whole.index(markers[1]):
        raise ValueError(f"{path} must have the lines {markers[0]} and {markers[1]} once each, in this order")
    before, rest = whole.split(markers[0])
    after = rest.split(markers[1])[1]
    write_text(path, f"{before}{markers[0]}\n{text}\n{markers[1]}{after}")
