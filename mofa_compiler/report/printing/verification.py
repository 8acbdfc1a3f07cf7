"""A verification for people at a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from ...base import words
from .. import text
from ..document import Code, Heading, Table, print_blocks
from ..document.terminal import print_lines, wrap


def print_verification(data: Mapping[str, Any], console: Console) -> None:
    """Print what `Verification.to_data` holds: a table of the passes, then everything that was looked at."""
    if data["passes"]:
        title = Heading(f"Output errors on the {data['measured_on']}")
        print_blocks((title, _pass_table(data["passes"], data["output"])), console)
        console.print()
    label = max(len(check["name"]) for check in data["checks"]) + 2
    for check in data["checks"]:
        mark = "ok    " if check["ok"] else "FAILED"
        first, *rest = wrap(check["detail"], console.width - label - len(mark) - 2)
        indent = " " * (label + len(mark) + 2)
        lines = [f"{mark}  {check['name']:<{label}}{first}", *(indent + line for line in rest)]
        print_lines(console, lines, "" if check["ok"] else "red")


def _pass_table(steps: Sequence[Mapping[str, Any]], output: Mapping[str, Any]) -> Table:
    """Each pass against the network before it and against the original; the last row is the network as it is now."""
    rows = []
    for index, step in enumerate(steps, 1):
        verdict = step["verdict"]
        exact = step["exact"] and verdict["holds"]
        own = "" if exact else text.psnr_text(verdict["step_psnr"])  # of rounding
        moved = "exact" if exact else words.error_text(verdict["relative_error"])
        so_far = words.error_text(verdict["accumulated"])
        rows.append(
            (str(index), Code(step["name"]), moved, own, so_far, text.psnr_text(verdict["psnr"]), _claim(verdict))
        )
    now = (words.error_text(output["relative_error"]), text.psnr_text(output["psnr"]))
    header = ("#", "pass", "moved by", "PSNR", "so far", "PSNR", "check")
    return Table(header, (*rows, ("", "as saved", "", "", *now, "")), "rlrrrrr", "Output errors", name=1)


def _claim(verdict: Mapping[str, Any]) -> str:
    """What became of a claim to be exact: `exact`, `exact in float32` where a network knows no other, `NOT exact`."""
    if not verdict["holds"]:
        return "NOT exact"
    if verdict["whole"] is None:
        return ""
    precision = verdict["whole"]["precision"]
    return "exact" if precision == "float64" else f"exact in {precision}"
