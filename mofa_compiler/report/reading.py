"""The report of a bundle, read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import BundleError, one_line


def read_report(path: Path) -> dict[str, Any]:
    """What a bundle's `report.json` holds.

    Args:
        path: the bundle's folder, or the file itself.

    Raises:
        BundleError: there is none, or it is no report of a version that this one reads.
    """
    file = path / "report.json" if path.is_dir() else path
    if not file.is_file():
        raise BundleError(f"{path} is not a bundle: it has no report.json" if path.exists() else f"there is no {path}")
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"{file} cannot be read: {one_line(error)}") from error
    schema = document.get("schema") if isinstance(document, dict) else None
    if not isinstance(schema, str) or not schema.startswith("mofa-report/"):
        raise BundleError(f"{file} is not a report of mofa-compiler: choose a folder that `mofa rewrite --out` wrote")
    if schema != "mofa-report/1":
        raise BundleError(f"{file} has the schema {schema}, and this version reads mofa-report/1: use a newer one")
    read: dict[str, Any] = document
    return read
