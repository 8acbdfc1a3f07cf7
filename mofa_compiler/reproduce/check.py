"""One thing that `verify` looked at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """What was looked at, whether it is as it should be, and what was compared, in a sentence."""

    name: str
    ok: bool
    detail: str
