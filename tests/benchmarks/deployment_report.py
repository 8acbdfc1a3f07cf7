"""The deployment benchmark's figures as Markdown, and as bars."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mofa_compiler.report.figures import save

from .variants import LIMIT, ORIGINAL, OURS

_COLOURS = ("#3d5a80", "#2a9d8f", "#e9c46a")
_HATCHES = ("", "////", "....")
_STOPPED = {"narrow enough": "until known to 1 %", "time limit": "as many as there was time for"}
_NONE = "–"


def markdown(data: Mapping[str, Any]) -> str:
    """For each engine a table, and below it what its cells have no room for."""
    shape, threads = "x".join(map(str, data["input"])), data["threads"]
    lines = [
        f"Input {shape}, {threads} thread{'s' if threads > 1 else ''}. Each cell: median time ÷ that of the original "
        "with its 95 % interval, and the median time."
    ]
    for engine in data["engines"]:
        if engine["missing"]:
            lines += ["", f"**{engine['engine']}** cannot run here: {engine['missing']}"]
            continue
        lines += ["", f"**{engine['engine']}** {engine['version']}, {engine['processor']}", "", *_table(engine)]
        notes = _notes(engine)
        lines += ["", *notes] if notes else []
    return "\n".join(lines)


def _table(engine: Mapping[str, Any]) -> list[str]:
    networks = engine["networks"]
    by_name = {label: {row["network"]: row for row in one["rows"]} for label, one in networks.items()}
    names = list(dict.fromkeys(name for rows in by_name.values() for name in rows))
    lines = [f"| network | {' | '.join(networks)} |", f"|---|{'---:|' * len(networks)}"]
    for name in names:
        cells = [_cell(rows.get(name)) for rows in by_name.values()]
        label = f"**{name}**" if name == OURS else name
        lines.append(f"| {label} | {' | '.join(cells)} |")
    for label, words in (("ours: share of the way to the limit", _share), ("control: the original again", _control)):
        lines.append(f"| {label} | {' | '.join(words(one) for one in networks.values())} |")
    lines.append(f"| rounds | {' | '.join(str(one.get('rounds', _NONE)) for one in networks.values())} |")
    return lines


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None or "ms" not in row:
        return _NONE
    time = f"{row['ms']:.3g} ms" if row["ms"] < 100 else f"{row['ms']:.0f} ms"
    if row["network"] == ORIGINAL:
        return f"1, {time}"
    low, high = row["interval"]
    ratio = f"{row['ratio']:.2f}"
    return f"{f'**{ratio}**' if row['network'] == OURS else ratio} ({low:.2f} to {high:.2f}), {time}"


def _share(one: Mapping[str, Any]) -> str:
    return _NONE if one.get("closed") is None else f"{one['closed']:.0%}"


def _control(one: Mapping[str, Any]) -> str:
    if "control" not in one:
        return _NONE
    low, high = one["control_interval"]
    return f"{one['control']:.2f} ({low:.2f} to {high:.2f})"


def _notes(engine: Mapping[str, Any]) -> list[str]:
    """One line each: what failed and why, what peers did, and what was decided."""
    notes: dict[str, list[str]] = {}
    for label, one in engine["networks"].items():
        if "problem" in one:
            notes.setdefault(f"not measured: {one['problem']}", []).append(label)
            continue
        for row in one["rows"]:
            if said := row["problem"] or row["note"]:
                notes.setdefault(f"{row['network']}: {said}", []).append(label)
        if one["decisions"]:
            notes.setdefault(f"when it was decided: {one['decisions']['sentence']}", []).append(label)
        if one["stopped"] in _STOPPED:
            notes.setdefault(f"rounds: {_STOPPED[one['stopped']]}", []).append(label)
    return [f"- {', '.join(labels)}: {text}." for text, labels in notes.items()]


def plot(data: Mapping[str, Any], path: Path) -> None:
    """Draw a bar chart for each engine; writes all of the file or nothing.

    Raises:
        MofaError: the file's ending names no format that we write.
        OSError: the file cannot be written.
    """
    save(lambda: _figure(data), path)


def _figure(data: Mapping[str, Any]) -> Any:
    """Engines side by side; below one another the networks, a bar for each model. Hatched, so that it prints."""
    from matplotlib.figure import Figure

    engines = [engine for engine in data["engines"] if engine["networks"]]
    labels = list(dict.fromkeys(label for engine in engines for label in engine["networks"]))
    rows = (row for engine in engines for one in engine["networks"].values() for row in one["rows"] if "ms" in row)
    names = list(dict.fromkeys(row["network"] for row in rows))
    thick = 0.8 / max(len(labels), 1)
    figure = Figure(
        figsize=(2.6 + 2.2 * len(engines), 1.2 + len(names) * 0.2 * (1 + len(labels))), layout="constrained"
    )
    charts = figure.subplots(1, max(len(engines), 1), sharex=True, sharey=True, squeeze=False)[0]
    for axes, engine in zip(charts, engines, strict=False):
        for index, label in enumerate(labels):
            found = {row["network"]: row for row in engine["networks"].get(label, {"rows": []})["rows"] if "ms" in row}
            offset = (index - (len(labels) - 1) / 2) * thick
            for place, name in enumerate(names):
                if name in found:
                    _bar(axes, place + offset, found[name], thick, index)
        axes.axvline(1, color="black", linewidth=0.8, zorder=2)
        axes.set_title(f"{engine['engine']} {engine['version']}", loc="left", fontsize=9)
        axes.set_xlabel("time ÷ the original's")
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.18, y=0.01)
    charts[0].set_yticks(
        range(len(names)), [textwrap.fill(name.replace("`", ""), 32) for name in names], parse_math=False
    )
    for tick, name in zip(charts[0].get_yticklabels(), names, strict=True):
        tick.set_fontweight("bold" if name == OURS else "normal")
        tick.set_fontstyle("italic" if name == LIMIT else "normal")
    charts[0].invert_yaxis()
    _legend(figure, labels)
    return figure


def _bar(axes: Any, place: float, row: Mapping[str, Any], thick: float, index: int) -> None:
    low, high = row["interval"]
    axes.barh(
        place,
        row["ratio"],
        0.92 * thick,
        color=_COLOURS[index % len(_COLOURS)],
        hatch=_HATCHES[index % len(_HATCHES)],
        edgecolor="white",
        linewidth=0,
    )
    axes.plot([low, high], [place, place], color="black", linewidth=0.8)
    axes.text(
        max(high, row["ratio"]) + 0.02,
        place,
        f"{row['ratio']:.2f}",
        va="center",
        ha="left",
        fontsize=6.5,
        zorder=3,
        bbox={"boxstyle": "square,pad=0.05", "facecolor": "white", "edgecolor": "none"},
    )


def _legend(figure: Any, labels: list[str]) -> None:
    from matplotlib.patches import Patch

    handles = [
        Patch(
            facecolor=_COLOURS[index % len(_COLOURS)],
            hatch=_HATCHES[index % len(_HATCHES)],
            edgecolor="white",
            linewidth=0,
            label=label,
        )
        for index, label in enumerate(labels)
    ]
    figure.legend(handles=handles, frameon=False, loc="outside lower center", ncols=max(len(handles), 1))
