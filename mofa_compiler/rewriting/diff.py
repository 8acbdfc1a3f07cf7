"""What a pass did: every edit, every refusal, and the totals before and after. Plain data; `report` renders it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..analysis.network import Totals
from .fate import ADJUSTED, Fate


@dataclass(frozen=True)
class Edit:
    """One layer that a pass changed."""

    path: str
    stage: str | None
    before: str
    after: str
    parameters: int
    """Change in parameters"""
    macs: int
    """Change in MACs"""
    fate: Fate
    """Where its weights come from"""
    exact: bool
    note: str = ""
    error: float | None = None
    """Largest error of an exact edit, relative to the largest output, in float64"""


def together(first: Edit, second: Edit) -> Edit:
    """Two edits of one path as one."""
    notes = dict.fromkeys(filter(None, (first.note, second.note)))
    errors = [edit.error for edit in (first, second) if edit.error is not None]
    return replace(
        second,
        before=first.before,
        parameters=first.parameters + second.parameters,
        macs=first.macs + second.macs,
        exact=first.exact and second.exact,
        note="; ".join(notes),
        error=max(errors) if len(errors) == 2 else None,
    )


@dataclass(frozen=True)
class Refusal:
    """A layer of the right kind that a pass left alone, and why."""

    path: str
    stage: str | None
    layer: str
    code: str
    """One of `SKIP_CODES`, or a pass's own"""
    reason: str


@dataclass(frozen=True)
class Diff:
    """The report of one pass."""

    pass_name: str
    options: Mapping[str, Any]
    edits: tuple[Edit, ...]
    skips: tuple[Refusal, ...]
    before: Totals
    after: Totals

    @property
    def exact(self) -> bool:
        """Whether every edit keeps the function that the network computes."""
        standing = [edit for edit in self.edits if edit.fate is not Fate.REMOVED]
        return all(edit.exact for edit in standing or self.edits)  # of what is gone nothing says so but what took it up

    @property
    def rewritten(self) -> tuple[Edit, ...]:
        """The edits that put another layer in place, without those whose weights alone were adjusted."""
        return tuple(edit for edit in self.edits if edit.fate not in ADJUSTED)
