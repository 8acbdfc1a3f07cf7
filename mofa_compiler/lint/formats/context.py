"""What a format is told besides the findings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..finding import Outcome

if TYPE_CHECKING:
    from ..rule import Rule  # which imports torch: not for a list of formats


@dataclass(frozen=True)
class Context:
    """What a format is told besides the findings.

    Attributes:
        rules: the rules that there are, by code.
        root: folder that file names are relative to: of the repository or, without one, of the configuration.
        config: the configuration file; what has no position of its own points there.
        width: of the terminal, in columns.
        colour: whether styles are wanted.
        monochrome: whether those styles are to do without colours (`NO_COLOR`).
        summary: file of the job summary that `github` appends to.
    """

    rules: Mapping[str, type[Rule]]
    root: Path
    config: Path | None = None
    width: int = 80
    colour: bool = False
    monochrome: bool = False
    summary: Path | None = None


Renderer = Callable[[Outcome, Context], str]
"""Everything that goes to stdout, with a line feed at its end unless it is empty"""
