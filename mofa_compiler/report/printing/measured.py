"""Measurements and engines for people at a terminal, and a chart of the times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...base import spelling
from ..document.terminal import elide, grid, print_lines, wrap
from ..figures.output import save

_SLOWEST = 20
_COLOURS = {None: "#3d5a80", "faster": "#2a9d8f", "inside the noise": "#9aa5b1", "slower": "#d1495b"}


def print_engines(engines: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print what `mofa engines --json` prints, as a table and a line on each that is missing."""
    table = grid()
    for header in ("engine", "version"):
        table.add_column(header, no_wrap=True)
    table.add_column("what it is")
    for engine in engines:
        missing = engine["missing"] is not None
        table.add_row(engine["name"], engine["version"] or "–", engine["summary"], style="dim" if missing else "")
    console.print(table)
    if any(engine["missing"] for engine in engines):
        console.print()
    for engine in engines:
        if engine["missing"]:
            print_lines(console, wrap(f"{engine['name']}: {engine['missing']}", console.width, 0, 4), "yellow")


def print_measured(data: Mapping[str, Any], console: Console) -> None:
    """Print what `mofa measure --json` prints: for each engine a table of the networks, then their layers."""
    shapes = ", ".join("x".join(map(str, one["shape"])) for one in data["inputs"])
    for index, engine in enumerate(data["engines"]):
        if index:
            console.print()
        threads = f"{engine['threads']} thread{'s' if engine['threads'] > 1 else ''}"
        title = f"{engine['engine']} {engine['version']}, {threads}, input {shapes}, {engine['processor']}"
        print_lines(console, wrap(title, console.width), "bold")
        console.print()
        console.print(_results(engine["results"], console.width))
        console.print()
        print_lines(console, wrap(_conditions(engine), console.width), "dim")
        for result in engine["results"]:
            if "layers" in result:
                _print_layers(result, engine["engine"], console)


def plot_measured(data: Mapping[str, Any], path: Path) -> None:
    """Draw the times as bars, grouped by engine; writes all of the file or nothing.

    Raises:
        MofaError: the file's ending names no format that we write.
        OSError: the file cannot be written.
    """
    save(lambda: _figure(data), path)


def _results(results: Sequence[Mapping[str, Any]], width: int) -> Table:
    memory = any("peak_mib" in result for result in results)
    table = grid()
    table.add_column("network", no_wrap=True)
    for header in ("ms", "ratio", "95 %, with noise", *(("peak MiB",) if memory else ())):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for result in results:
        first = result["ratio"] is None
        table.add_row(
            Text(spelling.printable(elide(result["name"], max(16, width - (64 if memory else 54))))),
            f"{result['ms']:.3g}" if result["ms"] < 100 else f"{result['ms']:.0f}",
            "1" if first else f"{result['ratio']:.3f}",
            "" if first else _interval(result["widened"]),
            *(([_mib(result["peak_mib"])]) if memory else []),
            "" if first else result["verdict"],
        )
    return table


def _conditions(engine: Mapping[str, Any]) -> str:
    why = {"narrow enough": "enough for the tolerance", "time limit": "then the time was over"}
    stopped = why.get(engine["stopped"], "which is the most")
    noise = f"{100 * engine['noise']:.1f} %"
    return (
        f"{engine['rounds']} rounds, {stopped}. The first network against itself: {engine['control']:.3f} "
        f"({_interval(engine['control_interval'])}), so noise widens every interval by {noise}; one "
        "that holds 1 is inside the noise."
    )


def _print_layers(result: Mapping[str, Any], engine: str, console: Console) -> None:
    console.print()
    if result["layers"] is None:
        print_lines(console, wrap(f"{engine} does not tell what the layers of {result['name']} take", console.width))
        return
    total = sum(entry["ms"] for entry in result["layers"]) or 1.0
    print_lines(console, wrap(f"Layers of {result['name']}, the slowest first", console.width), "bold")
    shown = result["layers"][:_SLOWEST]
    names = ["(not known)" if entry["layer"] is None else spelling.printable(entry["layer"]) for entry in shown]
    room = max(console.width, 60) - 18  # of the columns of numbers
    widest = min(max(map(len, names)), room // 2)
    table = grid()
    table.add_column("layer", no_wrap=True)
    for header in ("ms", "share"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("operators", no_wrap=True)
    for name, entry in zip(names, shown, strict=True):
        kinds = ", ".join(dict.fromkeys(operator["kind"] for operator in entry["operators"]))
        if len(kinds) > room - widest - 4:
            kinds = f"{kinds[: room - widest - 5]}…"
        share = f"{100 * entry['ms'] / total:.1f} %"
        table.add_row(Text(elide(name, widest)), f"{entry['ms']:.3f}", share, Text(kinds))
    console.print(table)
    if (left := len(result["layers"]) - _SLOWEST) > 0:
        print_lines(console, [f"and {left} more"], "dim")


def _figure(data: Mapping[str, Any]) -> Any:
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    rows = [(engine["engine"], result) for engine in data["engines"] for result in engine["results"]]
    figure = Figure(figsize=(7.2, 1.3 + 0.36 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for index, (_, result) in enumerate(rows):
        axes.barh(index, result["ms"], height=0.7, color=_COLOURS[result["verdict"]])
        label = "" if result["ratio"] is None else f" × {result['ratio']:.2f}"
        axes.text(result["ms"], index, label, va="center", ha="left")
    axes.set_yticks(range(len(rows)), [f"{engine}: {result['name']}" for engine, result in rows], parse_math=False)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("ms, median")
    axes.spines[["top", "right"]].set_visible(False)
    shapes = ", ".join("x".join(map(str, one["shape"])) for one in data["inputs"])
    axes.set_title(f"Time of one run, {shapes}, {data['engines'][0]['threads']} thread(s)", loc="left")
    met = list(dict.fromkeys(result["verdict"] for _, result in rows if result["verdict"]))
    if met:
        handles = [Patch(color=_COLOURS[verdict], label=verdict) for verdict in met]
        axes.legend(handles=handles, frameon=False, loc="best")
    return figure


def _interval(interval: Sequence[float]) -> str:
    return f"{interval[0]:.3f} to {interval[1]:.3f}"


def _mib(value: float | None) -> str:
    return "not known" if value is None else f"{value:.1f}"
