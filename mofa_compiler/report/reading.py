"""The report of a bundle, read back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..errors import BundleError, ReportError, one_line

FILE = "report.json"
_NEEDED = ("model", "roadmap", "inputs", "anatomy", "before", "after", "passes")


def read_report(path: Path, *, or_distribution: bool = False) -> dict[str, Any]:
    """What a bundle's `report.json` holds.

    Args:
        path: the bundle's folder, or the file itself.
        or_distribution: also read a file with what `mofa analyze --json` printed.

    Raises:
        BundleError: there is none, or it is no report of a version that this one reads, or damaged.
    """
    file = report_file(path)
    if not file.is_file():
        raise BundleError(f"{path} is not a bundle: it has no {FILE}" if path.exists() else f"there is no {path}")
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{file} cannot be read: {one_line(error)}") from error
    schema = document.get("schema") if isinstance(document, dict) else None
    read: dict[str, Any] = document
    if or_distribution and schema == "mofa-distribution/1":
        return read
    if not isinstance(schema, str) or not schema.startswith("mofa-report/"):
        raise BundleError(f"{file} is not a report of mofa-compiler: choose a folder that `mofa rewrite --out` wrote")
    if schema != "mofa-report/1":
        raise BundleError(f"{file} has the schema {schema}, and this version reads mofa-report/1: use a newer one")
    if missing := [key for key in _NEEDED if key not in document]:
        raise BundleError(f"{file} is damaged: it lacks {', '.join(missing)}")
    return read


def report_file(path: Path) -> Path:
    """Where the report of a bundle is; any other path as it is."""
    return path / FILE if path.is_dir() else path


def check_output(target: Path, sources: Iterable[Path]) -> None:
    """Refuse to write over one of the reports that are read, or over what is in one of their bundles.

    Raises:
        ReportError: `target` is such a file.
    """
    for source in sources:
        file = report_file(source)
        inside = source.is_dir() and target.absolute().parent.resolve() == source.resolve()
        if target.exists() and (inside or (file.exists() and target.samefile(file))):
            raise ReportError(f"{target} is part of {source}, which is read: choose another --out")


def short_names(sources: Sequence[str]) -> list[str]:
    """A bundle's folder or a file's name for each source; as given where another has that, numbered where it is twice.

    `out/a` and `out/b/report.json` are `a` and `b`.
    """
    short = {source: _short(Path(source)) for source in sources}
    names: list[str] = []
    for index, source in enumerate(sources):
        name = short[source] if list(short.values()).count(short[source]) == 1 else source
        again = sources[:index].count(source)
        names.append(f"{name} ({again + 1})" if again else name)
    return names


def _short(path: Path) -> str:
    whole = path.absolute()
    return whole.parent.name if whole.name == FILE else whole.stem if whole.suffix == ".json" else whole.name
