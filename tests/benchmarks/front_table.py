"""The front benchmark's figures as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from mofa_compiler.base.words import quantity

ORIGINAL, OURS, PEER, LIMIT = "original", "ours", "peer", "limit"
"""What a row is"""

TARGETS = (0.15, 0.4)
"""dB lost, at which the least time is told"""


def change(row: Mapping[str, Any]) -> float | None:
    """dB that the network is worth more than the original, mean over its images."""
    changes = row.get("changes")
    return fmean(changes.values()) if changes else None


def fastest(rows: Sequence[Mapping[str, Any]], lost: float) -> Mapping[str, Any] | None:
    """The fastest of our networks that loses at most so many dB; what is shown as the limit counts as kept."""
    kept = [row for row in rows if row["kind"] == OURS and "ms" in row and round(change(row) or 0.0, 2) >= -lost]
    return min(kept, key=lambda row: float(row["ms"]), default=None)


def ahead(rows: Sequence[Mapping[str, Any]], rival: Mapping[str, Any]) -> float | None:
    """dB by which the best of our networks that is at least as fast is above a rival; None where none is as fast."""
    mine = [change(row) for row in rows if row["kind"] == OURS and "ms" in row and row["ms"] <= rival["ms"]]
    theirs = change(rival)
    found = [one for one in mine if one is not None]
    return max(found) - theirs if found and theirs is not None else None


def markdown(data: Mapping[str, Any]) -> str:
    """For each network and engine a table, and below it what its cells have no room for."""
    lines = [
        f"Calibrated on {data['crops']} crops of photographs, {data['tuning']} steps; change of PSNR on photographs "
        "that were not used; one thread; all networks of a table in one race."
    ]
    for one in data["races"]:
        lines += ["", f"**{one['network']}, {one['engine']}**", ""]
        if "problem" in one:
            lines.append(f"Not measured: {one['problem']}")
            continue
        lines += [*_table(one["rows"]), "", *(f"- {note}." for note in _notes(one))]
    return "\n".join(lines)


def _table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "| network | change (dB) | by image | ms | ÷ original | ÷ exact | MACs | ours, as fast: dB above |"
    yield "|---|---:|---|---:|---:|---:|---:|---:|"
    for row in rows:
        cells = [row["name"]]
        if "problem" in row:
            yield f"| {row['name']} | {row['problem']} |||||||"
            continue
        mean, rival = change(row), ahead(rows, row) if row["kind"] == PEER else None
        low, high = row["interval"]
        cells += [
            "" if mean is None else f"{mean:+.2f}",
            " / ".join(f"{value:+.2f}" for value in row.get("changes", {}).values()),
            f"{row['ms']:.2f}",
            f"{row['ratio']:.2f} ({low:.2f} to {high:.2f})",
            f"{row['to_exact']:.2f}",
            quantity(row["macs"]) if row.get("macs") else "",
            "" if row["kind"] != PEER else "none as fast" if rival is None else f"{rival:+.2f}",
        ]
        yield f"| {' | '.join(cells)} |"


def _notes(one: Mapping[str, Any]) -> Iterator[str]:
    for lost in TARGETS:
        best = fastest(one["rows"], lost)
        said = "none" if best is None else f"{best['to_exact']:.2f} of the exact lowerings alone ({best['name']})"
        yield f"the least time at −{lost:g} dB or better: {said}"
    low, high = one["control"]
    yield f"the original again: {low:.3f} to {high:.3f} of its time; {one['rounds']} rounds"
    yield f"CPU seconds of the front: {one['seconds']:.0f}, of which pricing and calibrating: {one['fitting']:.0f}"
