"""The parts of a document. Words are plain text; what a format would take for markup, its renderer escapes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Tone = Literal["", "strong", "soft", "good", "warning", "bad"]


@dataclass(frozen=True)
class Code:
    """A name, or a layer's short form."""

    text: str


@dataclass(frozen=True)
class Toned:
    """Words that are judged or, soft ones, a remark: smaller, and on a page on a line of their own."""

    said: str | Code
    tone: Tone = "soft"


Word = str | Code | Toned
Words = Word | tuple[Word, ...]


@dataclass(frozen=True)
class Heading:
    """A title of what follows; the document's own is not among its blocks."""

    words: Words
    anchor: str = ""
    """By which links find it; a page lists these at its top"""


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
    cards: bool = False
    """Whether a page has room to show every row by itself: its name, before, after, the change, and what it means"""

    def narrower(self) -> Table:
        """Without the columns that it can do without."""
        return self.without(*self.spare)

    def without(self, *left_out: int) -> Table:
        """Without these columns."""
        kept = [index for index in range(len(self.header)) if index not in left_out]
        return Table(
            tuple(self.header[index] for index in kept),
            tuple(tuple(row[index] for index in kept) for row in self.rows),
            "".join(self.sides[index] for index in kept),
            self.label,
            spare=tuple(kept.index(index) for index in self.spare if index in kept),
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
    anchor: str = ""
    """A link to it opens it"""


@dataclass(frozen=True)
class Figure:
    """A drawing, for formats that have any."""

    svg: str
    label: str


@dataclass(frozen=True)
class Pane:
    """A picture; `source` is a data URI, or empty where there is none."""

    label: str
    source: str
    caption: str


@dataclass(frozen=True)
class Pictures:
    """What belongs to one image, side by side, for formats that show any."""

    name: str
    note: str
    """What one sees of what is no usual image"""
    size: tuple[int, int]
    """Height and width"""
    panes: tuple[Pane, ...]


@dataclass(frozen=True)
class Search:
    """A field that filters the rows and groups of its section, for formats that react."""

    label: str


Block = Heading | Paragraph | Notice | Table | Groups | Details | Figure | Pictures | Search


@dataclass(frozen=True)
class Document:
    """A title and what stands under it."""

    title: Words
    blocks: tuple[Block, ...]


def inline(words: Words) -> Iterator[str | Code]:
    """The parts of words, whatever their tone."""
    for part in words if isinstance(words, tuple) else (words,):
        yield part.said if isinstance(part, Toned) else part


def plain(words: Words) -> str:
    """Words without a difference between code and others."""
    return "".join(part.text if isinstance(part, Code) else part for part in inline(words))
