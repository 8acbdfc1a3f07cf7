"""A verification for people at a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...base import spelling, words
from .. import text
from ..document.terminal import grid, print_lines, wrap


def print_verification(data: Mapping[str, Any], console: Console) -> None:
    """Print what `Verification.to_data` holds: a table of the passes, then everything that was looked at."""
    if data["passes"]:
        print_lines(console, wrap(f"Output errors on the {data['measured_on']}", console.width), "bold")
        console.print()
        console.print(_pass_table(data["passes"], data["output"]))
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
    table = grid()
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("pass", overflow="fold")
    for header in ("moved by", "PSNR", "so far", "PSNR", "check"):
        table.add_column(header, justify="right", no_wrap=True)
    for index, step in enumerate(steps, 1):
        verdict = step["verdict"]
        exact = step["exact"] and verdict["holds"]
        table.add_row(
            str(index),
            Text(spelling.printable(step["name"])),
            "exact" if exact else words.error_text(verdict["relative_error"]),
            "" if exact else text.psnr_text(verdict["step_psnr"]),  # of rounding
            words.error_text(verdict["accumulated"]),
            text.psnr_text(verdict["psnr"]),
            _claim(verdict),
            style="" if verdict["holds"] else "red",
        )
    table.add_row(
        "", "as saved", "", "", words.error_text(output["relative_error"]), text.psnr_text(output["psnr"]), ""
    )
    return table


def _claim(verdict: Mapping[str, Any]) -> str:
    """What became of a claim to be exact: `exact`, `exact in float32` where a network knows no other, `NOT exact`."""
    if not verdict["holds"]:
        return "NOT exact"
    if verdict["whole"] is None:
        return ""
    precision = verdict["whole"]["precision"]
    return "exact" if precision == "float64" else f"exact in {precision}"
