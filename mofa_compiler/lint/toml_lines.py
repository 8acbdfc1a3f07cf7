"""Where a key stands in a TOML file, which tomllib does not tell."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Sequence
from typing import Any, TypeAlias

Key: TypeAlias = Sequence[str | int]
"""Names of tables and keys from the outermost on, and indices into arrays from 0: `("models", 1, "budgets", "macs")`"""

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def line_of(text: str, key: Key) -> int:
    """The line, from 1, on which a key stands; of a key that is not there, that of the innermost one around it.

    In an inline table or an array that is the line on which the element stands. For an array of tables, it is the line
    of its first `[[header]]`, and with an index, of that one.

    Args:
        text: what tomllib reads without an error.
        key: where to look.
    """
    # A file cut off behind a statement is TOML again, so a key is there from the end of its own statement on, and the
    # line sought is the one behind the last cut without it. Cuts inside of a statement are no TOML.
    key = tuple(key)
    document = tomllib.loads(text)
    while not _holds(document, key):
        key = key[:-1]
    if not key:
        return 1
    lines = text.split("\n")
    without, low, high = 0, 0, len(lines)
    while low + 1 < high:
        middle = (low + high) // 2
        cuts = ((end, _parsed("\n".join([*lines[:end], ""]))) for end in range(middle, low, -1))
        end, cut = next(((end, cut) for end, cut in cuts if cut is not None), (middle, None))
        if cut is not None and _holds(cut, key):
            high = end
        else:
            low = middle
            without = end if cut is not None else without
    return without + 1


def written(key: Key) -> str:
    """A key as TOML writes it, without indices: `per-path-ignores."encoders.*"`."""
    names = [part for part in key if isinstance(part, str)]
    return ".".join(name if _BARE.fullmatch(name) else json.dumps(name, ensure_ascii=False) for name in names)


def _parsed(text: str) -> dict[str, Any] | None:
    for closed in (text, f"{text}]"):  # the second one behind an element of an array over several lines
        try:
            return tomllib.loads(closed)
        except ValueError:
            continue
    return None


def _holds(document: Any, key: Key) -> bool:
    for part in key:
        if isinstance(part, int):
            if not isinstance(document, list) or part >= len(document):
                return False
        elif not isinstance(document, dict) or part not in document:
            return False
        document = document[part]
    return True
