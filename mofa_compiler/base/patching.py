"""Names that have other values for a while."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

_ABSENT = object()
_isinstance = isinstance  # which may itself be patched when all is put back


@contextmanager
def patched_names(patches: Iterable[tuple[Any, Any, Any]]) -> Iterator[None]:
    """Names of modules, classes and namespaces (dicts) have the given values until the end of the context.

    Afterwards each has what it had, in reverse order; one that was not there, or was inherited, is gone again.
    """
    undo: list[tuple[Any, Any, Any]] = []
    try:
        for home, name, value in patches:
            held = home if _isinstance(home, dict) else vars(home)
            undo.append((home, name, held.get(name, _ABSENT)))
            _put(home, name, value)
        yield
    finally:
        for home, name, was in reversed(undo):
            _put(home, name, was)


def _put(home: Any, name: Any, value: Any) -> None:
    if not _isinstance(home, dict):
        delattr(home, name) if value is _ABSENT else setattr(home, name, value)
    elif value is _ABSENT:
        del home[name]
    else:
        home[name] = value
