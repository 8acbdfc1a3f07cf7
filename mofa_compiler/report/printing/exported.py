"""An exported file for people at a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from ...base.precision import in_precision
from ..document.terminal import grid, print_lines, wrap

_SHOWN = 3


def print_exported(data: Mapping[str, Any], console: Console) -> None:
    """Print what `Exported.to_data` holds: the operators, then the file, its error and the notes."""
    with_layers = any(one["layers"] for one in data["operators"])
    with_backends = any(one["backend"] for one in data["operators"])
    table = grid()
    table.add_column("operator", overflow="fold")
    table.add_column("calls", justify="right", no_wrap=True)
    if with_backends:
        table.add_column("run by", no_wrap=True)
    if with_layers:
        table.add_column("layers", overflow="fold")
    for one in data["operators"]:
        row = [one["kind"], str(one["count"])]
        row += [one["backend"] or ""] if with_backends else []
        row += [_layers(one["layers"])] if with_layers else []
        table.add_row(*row)
    console.print(table)
    console.print()
    size = data["size"] / 2**20
    lines = [f"{' and '.join(data['files'])}: {size:.2f} MiB{in_precision(data['precision'])}, {_sizes(data)}"]
    if data["floating"]:
        lines.append(f"in float: {', '.join(data['floating'])}")
    for one in data["comparisons"]:
        lines.append(f"largest relative error at {one['inputs']}: {one['relative_error']:.1e}")
    for line in lines:
        print_lines(console, wrap(line, console.width))
    for note in data["notes"]:
        first, *rest = wrap(note, console.width - 6)
        print_lines(console, [f"note: {first}", *(f"      {line}" for line in rest)], "yellow")


def _sizes(data: Mapping[str, Any]) -> str:
    found = data["dynamic"]
    if found is None:
        return f"for {data['inputs']} only"
    text = f"H and W from {found['low']}"
    text += " to {}x{}".format(*found["high"]) if found["high"] else ""
    text += f" in multiples of {found['multiple']}" if found["multiple"] > 1 else ""
    return f"{text}, {'any batch' if found['batch'] else 'batch fixed'}"


def _layers(paths: list[str]) -> str:
    names = [path or "(network)" for path in paths]
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f", {more} more" if more > 0 else "")
