"""The parts of a document. Words are plain text; what a format would take for markup, its renderer escapes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Tone = Literal["", "strong", "soft", "good", "warning", "bad"]


@dataclass(frozen=True)
class Code:
    """A name, or a layer's short form."""

    text: str


Words = str | Code | tuple[str | Code, ...]


@dataclass(frozen=True)
class Heading:
    """A title of what follows; the document's own is not among its blocks."""

    words: Words


@dataclass(frozen=True)
class Paragraph:
    """One or several sentences."""

    words: Words
    tone: Tone = ""
    indent: int = 0
    """Columns at a terminal"""


@dataclass(frozen=True)
class Notice:
    """A sentence that a reader should not miss."""

    words: Words


@dataclass(frozen=True)
class Table:
    """A header and rows; `sides` has an `l` or an `r` for every column."""

    header: tuple[str, ...]
    rows: tuple[tuple[Words, ...], ...]
    sides: str
    label: str
    """What it is, for those who cannot see it"""
    spare: tuple[int, ...] = ()
    """Columns that a narrow terminal leaves out"""
    name: int = 0
    """The column that says what a row is of; a narrow terminal shortens it"""
    note: str = ""
    """How to read it"""

    def narrower(self) -> Table:
        """Without the columns that it can do without."""
        kept = [index for index in range(len(self.header)) if index not in self.spare]
        return Table(
            tuple(self.header[index] for index in kept),
            tuple(tuple(row[index] for index in kept) for row in self.rows),
            "".join(self.sides[index] for index in kept),
            self.label,
            name=kept.index(self.name),
            note=self.note,
        )


@dataclass(frozen=True)
class Group:
    """Layers of which the same is said: `3 × Conv2d(8, k3) → PConv2d(8, k3): a, b, c`."""

    words: Words
    paths: tuple[str, ...]
    note: str = ""


@dataclass(frozen=True)
class Groups:
    """Several of them."""

    groups: tuple[Group, ...]


@dataclass(frozen=True)
class Details:
    """Blocks that are folded where a format can."""

    summary: Words
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Figure:
    """A drawing, for formats that have any."""

    svg: str
    label: str


Block = Heading | Paragraph | Notice | Table | Groups | Details | Figure


@dataclass(frozen=True)
class Document:
    """A title and what stands under it."""

    title: Words
    blocks: tuple[Block, ...]


def plain(words: Words) -> str:
    """Words without a difference between code and others."""
    parts = words if isinstance(words, tuple) else (words,)
    return "".join(part.text if isinstance(part, Code) else part for part in parts)
