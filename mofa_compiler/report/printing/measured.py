"""Measurements and engines for people at a terminal, and a chart of the times."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from ...base import words
from ...base.precision import in_precision
from ..document import Block, Heading, Paragraph, Table, print_blocks
from ..document.terminal import grid, print_lines, wrap
from ..figures.output import save

_SLOWEST = 20
_COLOURS = {None: "#3d5a80", "faster": "#2a9d8f", "inside the noise": "#9aa5b1", "slower": "#d1495b"}


def print_engines(engines: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print what `mofa engines --json` prints, as a table and a line on each that is missing."""
    table = grid()
    for header in ("engine", "version"):
        table.add_column(header, no_wrap=True)
    table.add_column("precisions")
    table.add_column("what it is")
    for engine in engines:
        missing = engine["missing"] is not None
        table.add_row(
            engine["name"],
            engine["version"] or "–",
            " ".join(engine["precisions"]),
            engine["summary"],
            style="dim" if missing else "",
        )
    console.print(table)
    if any(engine["missing"] for engine in engines):
        console.print()
    for engine in engines:
        if engine["missing"]:
            print_lines(console, wrap(f"{engine['name']}: {engine['missing']}", console.width, 0, 4), "yellow")


def print_measured(data: Mapping[str, Any], console: Console) -> None:
    """Print what `mofa measure --json` prints: for each engine a table of the networks, then their layers."""
    print_blocks(_measured(data, max(console.width, 60)), console)


def plot_measured(data: Mapping[str, Any], path: Path) -> None:
    """Draw the times as bars, grouped by engine; writes all of the file or nothing.

    Raises:
        MofaError: the file's ending names no format that we write.
        OSError: the file cannot be written.
    """
    save(lambda: _figure(data), path)


def _measured(data: Mapping[str, Any], width: int) -> Iterator[Block]:
    shapes = ", ".join("x".join(map(str, one["shape"])) for one in data["inputs"])
    for engine in data["engines"]:
        threads = words.count(engine["threads"], "thread")
        name = f"{engine['engine']} {engine['version']}{in_precision(engine['precision'])}"
        yield Heading(f"{name}, {threads}, input {shapes}, {engine['processor']}")
        yield _results(engine["results"])
        yield Paragraph(_conditions(engine), "soft")
        for result in engine["results"]:
            if "layers" in result:
                yield from _layers(result, engine["engine"], width)


def _results(results: Sequence[Mapping[str, Any]]) -> Table:
    rows = []
    for one in results:
        first = one["ratio"] is None
        time = f"{one['ms']:.3g}" if one["ms"] < 100 else f"{one['ms']:.0f}"
        compared = ("1", "") if first else (f"{one['ratio']:.3f}", _interval(one["widened"]))
        memory = _mib(one["peak_mib"]) if "peak_mib" in one else ""
        rows.append((one["name"], time, *compared, memory, "" if first else one["verdict"]))
    table = Table(("network", "ms", "ratio", "95 %, with noise", "peak MiB", ""), tuple(rows), "lrrrrl", "Times")
    return table if any("peak_mib" in one for one in results) else table.without(4)


def _conditions(engine: Mapping[str, Any]) -> str:
    why = {"narrow enough": "enough for the tolerance", "time limit": "then the time was over"}
    stopped = why.get(engine["stopped"], "which is the most")
    noise = f"{100 * engine['noise']:.1f} %"
    return (
        f"{engine['rounds']} rounds, {stopped}. The first network against itself: {engine['control']:.3f} "
        f"({_interval(engine['control_interval'])}), so noise widens every interval by {noise}; one "
        "that holds 1 is inside the noise."
    )


def _layers(result: Mapping[str, Any], engine: str, width: int) -> Iterator[Block]:
    if result["layers"] is None:
        yield Paragraph(f"{engine} does not tell what the layers of {result['name']} take")
        return
    yield Heading(f"Layers of {result['name']}, the slowest first")
    total = sum(entry["ms"] for entry in result["layers"]) or 1.0
    rows, room = [], width // 2 - 18
    for entry in result["layers"][:_SLOWEST]:
        kinds = ", ".join(dict.fromkeys(operator["kind"] for operator in entry["operators"]))
        share = f"{100 * entry['ms'] / total:.1f} %"
        name = "(not known)" if entry["layer"] is None else entry["layer"]
        rows.append((name, f"{entry['ms']:.3f}", share, kinds if len(kinds) <= room else f"{kinds[: room - 1]}…"))
    yield Table(("layer", "ms", "share", "operators"), tuple(rows), "lrrl", "Layers")
    if (left := len(result["layers"]) - _SLOWEST) > 0:
        yield Paragraph(f"and {left} more", "soft")


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
