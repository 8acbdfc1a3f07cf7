"""How a name that may hold any character is written in each language that this package writes.

Names are those of modules, parameters, classes, passes and roadmaps. HTML is not here: its templates escape everything.
"""

from __future__ import annotations

import json
import keyword
import re
import unicodedata
from typing import Any

_MARKDOWN = re.compile(r"([\\`*_\[\]<>|~&])")
_JSON_IN_STRINGS = re.compile(r"[^\x00-\x7e]")


def printable(text: str) -> str:
    """Text in which control characters are escaped, so that no name can move the cursor or break a line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def has_no_encoding(text: str) -> bool:
    """Whether text holds half of a surrogate pair, which no file can."""
    return any("\ud800" <= c <= "\udfff" for c in text)


# Python


def is_plain(name: str) -> bool:
    """Whether Python reads `self.name` as this very attribute, in the body of a class, too.

    It does not where letters have another normal form (the ligature of f and i), or two underscores lead.
    """
    normal = unicodedata.normalize("NFKC", name) == name
    return normal and name.isidentifier() and not keyword.iskeyword(name) and not name.startswith("__")


def identifier(text: str) -> str:
    """A valid name like `text`: `0.conv` becomes `_0_conv`."""
    normal = unicodedata.normalize("NFKC", text)
    name = "".join(c if f"a{c}".isidentifier() else "_" for c in normal)
    name = name if name.strip("_") else "x"
    return name if name.isidentifier() and not keyword.iskeyword(name) else f"_{name}"


def attribute(owner: str, name: str) -> str:
    """Source for an attribute of what `owner` is the source of."""
    return f"{owner}.{name}" if is_plain(name) else f"getattr({owner}, {string(name)})"


def string(text: str) -> str:
    """A literal, in double quotes where that needs no escapes."""
    quoted = repr(text)
    return f'"{quoted[1:-1]}"' if '"' not in text and quoted[0] == "'" else quoted


def in_docstring(text: str) -> str:
    """What stands for text in a literal between three double quotes."""
    return printable(text).replace("\\", "\\\\").replace('"', '\\"')


# Markdown, of GitHub's kind


def markdown(text: str) -> str:
    """Text in which nothing is markup, on one line."""
    return _MARKDOWN.sub(r"\\\1", printable(" ".join(text.split())))


def code_span(text: str) -> str:
    """A code span on one line, whatever the text holds."""
    text = printable(" ".join(text.split()))
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def html_in_markdown(text: str) -> str:
    """Text inside an element of HTML that Markdown holds, on one line."""
    line = printable(" ".join(text.split()))
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


# Data


def json_text(document: Any, indent: int | None = 2) -> str:
    """JSON in which letters are letters, and what does not print is escaped."""
    return _JSON_IN_STRINGS.sub(_escaped, json.dumps(document, indent=indent, ensure_ascii=False))


def toml_string(text: str) -> str:
    """A basic string of TOML."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    return character if character.isprintable() else json.dumps(character)[1:-1]
