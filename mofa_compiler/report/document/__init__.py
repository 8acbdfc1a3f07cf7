"""What is said of networks as headings, paragraphs, tables and lists: built once, rendered in three formats."""

from .blocks import (
    Block,
    Code,
    Details,
    Document,
    Figure,
    Group,
    Groups,
    Heading,
    Notice,
    Pane,
    Paragraph,
    Pictures,
    Search,
    Table,
    Toned,
    Words,
    plain,
)
from .markdown import render as markdown
from .terminal import print_blocks, show

__all__ = [
    "Block",
    "Code",
    "Details",
    "Document",
    "Figure",
    "Group",
    "Groups",
    "Heading",
    "Notice",
    "Pane",
    "Paragraph",
    "Pictures",
    "Search",
    "Table",
    "Toned",
    "Words",
    "markdown",
    "plain",
    "print_blocks",
    "show",
]
