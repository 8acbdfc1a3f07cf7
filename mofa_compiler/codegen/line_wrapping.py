"""Break lines that are too long at the commas of their outermost call, list or dict."""

from __future__ import annotations

WIDTH = 110


def wrap(text: str) -> str:
    """The text with its long lines broken; it means the same."""
    return "\n".join(_wrap_line(line) for line in text.split("\n"))


def _wrap_line(line: str) -> str:
    if len(line) <= WIDTH or line.lstrip().startswith('"""'):
        return line
    indent = line[: len(line) - len(line.lstrip())]
    for start, end in sorted(_groups(line), key=lambda group: group[0] - group[1]):
        parts = _split(line[start + 1 : end])
        if not any(parts):
            continue
        inner = [_wrap_line(f"{indent}    {part},") for part in parts]
        return "\n".join([line[: start + 1], *inner, _wrap_line(indent + line[end:])])
    return line


def _groups(line: str) -> list[tuple[int, int]]:
    """Outermost brackets that may take a line per element: of calls, lists and dicts; not of subscripts."""
    groups: list[tuple[int, int]] = []
    opened: list[int] = []
    for position, character in _code(line):
        if character in "([{":
            opened.append(position)
        elif character in ")]}" and opened:
            start = opened.pop()
            called = start > 0 and (line[start - 1].isalnum() or line[start - 1] in "_)]")
            if not opened and called == (line[start] == "("):
                groups.append((start, position))
    return groups


def _split(text: str) -> list[str]:
    """The elements between top-level commas."""
    parts, depth, begin = [], 0, 0
    for position, character in _code(text):
        depth += (character in "([{") - (character in ")]}")
        if character == "," and not depth:
            parts.append(text[begin:position].strip())
            begin = position + 1
    return [*parts, text[begin:].strip()] if text[begin:].strip() else parts


def _code(text: str) -> list[tuple[int, str]]:
    """Characters outside of string literals, with their positions."""
    found, quote, escaped = [], "", False
    for position, character in enumerate(text):
        if quote:
            quote = "" if character == quote and not escaped else quote
            escaped = character == "\\" and not escaped
        elif character in "\"'":
            quote = character
        else:
            found.append((position, character))
    return found
