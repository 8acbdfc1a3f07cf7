"""Reports as they were saved: of a bundle, or in a file of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ..base.atomic_files import put_back
from ..base.errors import ReportError
from ..base.plain import first_problem, read_json
from .distribution import SCHEMA as DISTRIBUTION
from .distribution import Distribution
from .model import SCHEMA, Report

FILE = "report.json"
OLD = "mofa-report/1"
"""Of bundles that are still loaded, checked and given new weights, but whose reports are not read"""

_Model = TypeVar("_Model", bound=BaseModel)


def read_report(path: Path) -> Report:
    """The report in a bundle's folder, or in a file.

    Raises:
        ReportError: there is none, it cannot be read, or it is of another schema or damaged.
    """
    document = read_document(path)
    if document["schema"] == OLD:
        raise ReportError(f"{report_file(path)} is {written_by(document)}: rewrite the network again (mofa rewrite)")
    return _validated(path, Report)


def read_drawn(path: Path) -> Report | Distribution:
    """A report, or what `mofa analyze --json` printed.

    Raises:
        ReportError: as of `read_report`.
    """
    return _validated(path, Distribution) if _schema(_read(path)) == DISTRIBUTION else read_report(path)


def read_document(path: Path) -> dict[str, Any]:
    """The same as plain data, as far as its schema goes; also of the version before this one.

    Raises:
        ReportError: there is none, it cannot be read, or it is of another schema.
    """
    document = _read(path)
    schema = _schema(document)
    if schema not in (SCHEMA, OLD):
        what = f"of schema {schema!r}" if schema else "no report"
        raise ReportError(f"{report_file(path)} is {what}: give a bundle or its {FILE}, of schema {SCHEMA}")
    return dict(document)


def written_by(document: Mapping[str, Any]) -> str:
    """`of schema mofa-report/1, which mofa-compiler 0.1.0 wrote, and this one reads mofa-report/2`."""
    versions = document.get("versions")
    version = versions.get("mofa-compiler") if isinstance(versions, Mapping) else None
    writer = f"mofa-compiler {version}" if isinstance(version, str) else "an earlier version"
    return f"of schema {document['schema']}, which {writer} wrote, and this one reads {SCHEMA}"


def report_file(path: Path) -> Path:
    """Where the report of a bundle is; any other path as it is."""
    return path / FILE if path.is_dir() else path


def _read(path: Path) -> Any:
    put_back(path)
    file = report_file(path)
    if not file.is_file():
        raise ReportError(f"{path} is not a bundle: it has no {FILE}" if path.exists() else f"there is no {path}")
    try:
        return read_json(file)
    except OSError as error:
        raise ReportError(f"{file} cannot be read as a report: {error.strerror}") from error
    except ValueError as error:
        raise ReportError(f"{file} cannot be read as a report, it is damaged: {error}") from error


def _schema(document: Any) -> str | None:
    schema = document.get("schema") if isinstance(document, Mapping) else None
    return None if schema is None else str(schema)


def _validated(path: Path, model: type[_Model]) -> _Model:
    file = report_file(path)
    try:
        return model.model_validate_json(file.read_bytes(), strict=True)
    except ValidationError as error:
        raise ReportError(f"{file} is damaged: {first_problem(error)}") from error


def check_output(target: Path, sources: Iterable[Path]) -> None:
    """Refuse to write over one of the reports that are read, or over what is in one of their bundles.

    Raises:
        ReportError: `target` is such a file.
    """
    for source in sources:
        file = report_file(source)
        bundle = file.resolve().parent
        whole = source.is_dir() or (bundle / "recipe.json").is_file()
        inside = whole and target.resolve().is_relative_to(bundle)
        if target.exists() and (inside or (file.exists() and target.samefile(file))):
            raise ReportError(f"{target} is part of {source}, which is read: choose another --out")


def distinct(sources: Sequence[str], short: Mapping[str, str]) -> list[str]:
    """The short name of each source; the source itself where two have the same, numbered where it comes again."""
    names: list[str] = []
    for index, source in enumerate(sources):
        name = short[source] if list(short.values()).count(short[source]) == 1 else source
        again = sources[:index].count(source)
        names.append(f"{name} ({again + 1})" if again else name)
    return names


def short_name(path: Path) -> str:
    """A bundle's folder or a file's name: `out/a` and `out/b/report.json` are `a` and `b`."""
    whole = path.absolute()
    return whole.parent.name if whole.name == FILE else whole.stem if whole.suffix == ".json" else whole.name
