"""Which passes exist: those of the entry point group `mofa_compiler.passes`, ours and other packages' alike."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib.metadata import entry_points

from ..base.errors import RoadmapError
from .pass_api import Pass

GROUP = "mofa_compiler.passes"


@functools.cache
def available() -> Mapping[str, type[Pass]]:
    """Every installed pass by name.

    Raises:
        RoadmapError: an entry point cannot be loaded, is no pass, or takes a name twice.
    """
    found: dict[str, type[Pass]] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        origin = f"entry point {entry.name!r} ({entry.value})"
        try:
            pass_ = entry.load()
        except Exception as error:
            raise RoadmapError(f"{origin} in group {GROUP} cannot be loaded: {error}", code="unreadable") from error
        if not (isinstance(pass_, type) and issubclass(pass_, Pass)) or pass_.name != entry.name:
            raise RoadmapError(f"{origin} in group {GROUP} is not a Pass of that name", code="wrong-kind")
        if found.setdefault(entry.name, pass_) is not pass_:
            raise RoadmapError(f"two packages provide a pass {entry.name!r}: uninstall one", code="ambiguous")
    return found
