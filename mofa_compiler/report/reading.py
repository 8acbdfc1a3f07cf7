"""Reports as they were saved: of a bundle, or in a file of their own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..base.atomic_files import put_back
from ..base.documents import read_json
from ..base.errors import ReportError, one_line

FILE = "report.json"
IMAGES = "images"
"""The folder in a bundle that has the images before and after"""
_REPORT, _DISTRIBUTION = "mofa-report/1", "mofa-distribution/1"
_VERDICT = {"measured_on": "example input", "step_psnr": None, "holds": True, "problem": "", "whole": None}
_NEEDED = {
    **{"model": str, "inputs": list, "passes": list},
    **dict.fromkeys(("roadmap", "anatomy", "before", "after"), dict),
}
_KINDS = {dict: "an object", list: "a list", str: "text", int: "a number", float: "a number", bool: "true or false"}
_KINDS[type(None)] = "null"


def read_report(path: Path, *, or_distribution: bool = False) -> dict[str, Any]:
    """The report in a bundle's folder, or in a file; with `or_distribution` also what `mofa analyze --json` printed.

    Raises:
        ReportError: there is none, it cannot be read, or it is of another schema or damaged.
    """
    put_back(path)
    file = report_file(path)
    if not file.is_file():
        raise ReportError(f"{path} is not a bundle: it has no {FILE}" if path.exists() else f"there is no {path}")
    try:
        document = read_json(file)
    except OSError as error:
        raise ReportError(f"{file} cannot be read as a report: {error.strerror}") from error
    except ValueError as error:
        raise ReportError(f"{file} cannot be read as a report, it is damaged: {error}") from error
    schema = document.get("schema") if isinstance(document, Mapping) else None
    if or_distribution and schema == _DISTRIBUTION:
        return dict(document)
    if schema != _REPORT:
        what = f"of schema {schema!r}" if schema else "no report"
        raise ReportError(f"{file} is {what}: give a bundle or its {FILE}, of schema {_REPORT}")
    missing = [key for key in _NEEDED if key not in document]
    if missing:
        raise ReportError(f"{file} is damaged: it lacks {', '.join(missing)}")
    for key, kind in _NEEDED.items():
        if not isinstance(document[key], kind):
            raise ReportError(f"{file} is damaged: {key} is {_KINDS[type(document[key])]}")
    for index, step in enumerate(document["passes"]):
        if not isinstance(step, dict) or not isinstance(step.get("verdict", {}), dict):
            raise ReportError(f"{file} is damaged: passes[{index}] is no pass with its verdict")
    return completed(document)


def completed(report: Mapping[str, Any]) -> dict[str, Any]:
    """A report of an early version, with what its verdicts did not say yet."""

    def whole(verdict: Mapping[str, Any]) -> dict[str, Any]:
        return {**verdict, **{key: value for key, value in _VERDICT.items() if key not in verdict}}

    steps = [{**step, "verdict": whole(step["verdict"])} if "verdict" in step else step for step in report["passes"]]
    return {**report, "passes": steps}


@contextlib.contextmanager
def naming_damage(sources: Iterable[Path], made: str) -> Iterator[None]:
    """Turn what goes wrong over a report that lacks something into one error that names its file.

    Args:
        sources: the bundles or files that are read.
        made: what is made of them, for the message.

    Raises:
        ReportError: a key is missing, or a value is not of the kind that the schema says.
    """
    from jinja2 import UndefinedError

    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, UndefinedError) as error:
        files = " or ".join(str(report_file(source)) for source in sources)
        what = f"a value is of another kind than it should be, {one_line(error)}"
        if isinstance(error, KeyError | UndefinedError):
            what = f"it lacks {str(error).rpartition(' ')[2]}"  # 'dict object' has no attribute 'name'
        raise ReportError(f"{files} is damaged, so no {made} can be made of it: {what}") from error


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
