"""`json` and `json-lines`: the findings as they are, for programs.

Only ASCII is written: whatever a name holds survives every encoding of stdout.
"""

from __future__ import annotations

import json
import math
from typing import Any

from ..finding import Outcome
from .context import Context


def render(outcome: Outcome, context: Context) -> str:
    """One object, as `Outcome.to_data` has it."""
    return f"{dump(outcome.to_data(), indent=2)}\n"


def render_lines(outcome: Outcome, context: Context) -> str:
    """One object a line and finding."""
    return "".join(f"{dump(finding.to_data())}\n" for finding in outcome.findings)


def dump(data: Any, indent: int | None = None) -> str:
    """Strict JSON, in which what is not finite is null."""
    return json.dumps(_finite(data), indent=indent, ensure_ascii=True, allow_nan=False)


def _finite(data: Any) -> Any:
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return data
