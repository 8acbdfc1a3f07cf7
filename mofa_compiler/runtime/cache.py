"""Measurements kept on disk, so that nothing is measured twice on the same machine with the same engine."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from ..base.atomic_files import replaced
from ..base.errors import EngineError
from ..base.plain import read_json
from .engine import Engine

VARIABLE = "MOFA_CACHE"
T = TypeVar("T")
_REQUIRED = ("engine", "version", "torch", "processor", "threads")


def measurement_key(engine: Engine, threads: int, **what: Any) -> dict[str, Any]:
    """Key of something measured here and now: `what` it is, as plain data, and all of what its times depend on."""
    import torch

    return {
        **what,
        "engine": engine.name,
        "precision": engine.precision,
        "version": engine.version(),
        "torch": torch.__version__,
        "processor": engine.processor(),
        "threads": threads,
    }


class Cache:
    """Plain data by keys of plain data, a JSON file each.

    Args:
        folder: where they lie; without one, $MOFA_CACHE, or else the user's cache folder.
    """

    def __init__(self, folder: Path | str | None = None):
        self.folder = Path(folder).expanduser() if folder is not None else default_folder()

    def get(self, key: Mapping[str, Any]) -> Any | None:
        """What was put under this key; None where nothing was, or the file is damaged.

        Raises:
            EngineError: the key lacks an entry of `measurement_key`, or holds what JSON does not.
        """
        text = _text(key)
        try:
            entry = read_json(self._file(text))
            return entry["data"] if _text(entry["key"]) == text else None
        except (OSError, ValueError, KeyError, TypeError, EngineError):
            return None

    def read(self, key: Mapping[str, Any], kind: type[T]) -> T | None:
        """The same as a type of Python; None also where the file holds something else than what was put there.

        Raises:
            EngineError: as `get`.
        """
        try:
            return TypeAdapter(kind).validate_python(self.get(key))
        except ValidationError:
            return None

    def put(self, key: Mapping[str, Any], data: Any) -> None:
        """Keep data under a key; all of it is written, or nothing.

        Raises:
            EngineError: the key lacks an entry of `measurement_key`, key or data hold what JSON does not, or the folder
                cannot be written.
        """
        file = self._file(_text(key))
        try:
            text = json.dumps({"key": dict(key), "data": data}, indent=1, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise EngineError(f"a measurement's data must be plain: {error}", code="bad-value") from error
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with replaced(file) as handle:
                handle.write(text)
        except OSError as error:
            is_file = isinstance(error, FileExistsError | NotADirectoryError)
            what = "it is a file, not a folder" if is_file else error.strerror
            raise EngineError(
                f"cannot keep measurements in {self.folder}: {what}; ${VARIABLE} names another folder",
                code="unwritable",
            ) from error

    def _file(self, text: str) -> Path:
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()}.json"


def default_folder() -> Path:
    """$MOFA_CACHE, or `mofa-compiler` in the folder that the operating system has for caches."""
    if named := os.environ.get(VARIABLE):
        return Path(named).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library/Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "mofa-compiler"


def _text(key: Mapping[str, Any]) -> str:
    """The same text for the same key, in whatever order its entries are."""
    missing = [name for name in _REQUIRED if name not in key]
    if missing:
        raise EngineError(
            f"a measurement's key lacks {', '.join(missing)}: make it with measurement_key", code="bad-value"
        )
    try:
        return json.dumps(dict(key), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise EngineError(f"a measurement's key must be plain data: {error}", code="bad-value") from error
