"""The roadmap, as the paper's Figure 3: one step a pass, with what it added or saved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...base import words
from ..model import Report, Step
from .style import COLOURS, clipped, heading, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH = 7.2
_BAR = 0.62
_AMOUNTS = (("parameters", "parameters"), ("macs", "MACs"))


def roadmap(report: Report, *, bare: bool = False) -> Figure:
    """From the original, one row a pass: parameters and MACs after it, with what it added or saved, and the PSNR
    against the original's output where one was measured.

    Args:
        report: a report.
        bare: without the heading, for a page that has one.
    """
    from matplotlib.figure import Figure

    steps = report.passes
    psnrs = [step.verdict.psnr for step in steps]
    panels = 3 if any(value is not None for value in psnrs) else 2
    with style():
        figure = Figure(figsize=(_WIDTH, 1.35 + 0.34 * (len(steps) + 1)), layout="constrained")
        if not bare:
            figure.suptitle(heading(report), x=0.01, ha="left", fontsize=10, fontweight="bold")
        figure.set_label(f"{heading(report)}: what each pass added or saved")
        ratios = (3, 3, 2)[:panels]
        columns: Any = figure.subplots(1, panels, sharey=True, width_ratios=ratios)
        for axes, (key, title) in zip(columns, _AMOUNTS, strict=False):
            _draw_amounts(axes, report, key)
            axes.set_title(title)
        if panels == 3:
            _draw_psnr(columns[2], steps)
        names = ["original", *(f"{index}. {clipped(step.name, 28)}" for index, step in enumerate(steps, 1))]
        columns[0].set_yticks(range(len(names)), names)
        columns[0].set_ylim(len(names) - 0.4, -0.6)
        _explain(figure)
    return figure


def _draw_amounts(axes: Any, report: Report, key: str) -> None:
    """Bars of the total after each step: what was there before, and what came on top of it or went."""
    states = [getattr(one, key) for one in (report.before, *(step.after for step in report.passes))]
    most = float(max(states)) or 1.0
    for row, now in enumerate(states):
        before = states[row - 1] if row else now
        kept = float(min(before, now))
        axes.barh(row, kept, _BAR, color=COLOURS["before" if row < len(states) - 1 else "after"])
        if now > before:
            axes.barh(row, float(now) - kept, _BAR, left=kept, color=COLOURS["added"])
        elif now < before:
            axes.barh(
                row,
                float(before) - kept,
                _BAR,
                left=kept,
                facecolor=COLOURS["paper"],
                edgecolor=COLOURS["saved"],
                hatch="//////",
                linewidth=0.8,
            )
        label = words.quantity(now)
        if row:
            label += f" ({words.signed(now - before)})" if now != before else " (0)"
        axes.text(float(max(before, now)) + 0.02 * most, row, label, va="center", fontsize=7.5)
    axes.set_xlim(0, 1.75 * most)  # room for the words
    axes.xaxis.set_visible(False)
    axes.spines.bottom.set_visible(False)
    axes.tick_params(axis="y", length=0)


def _draw_psnr(axes: Any, steps: Sequence[Step]) -> None:
    """A point a step; where the output is still the original's, no number says how good that is."""
    known = [(row, step.verdict.psnr) for row, step in enumerate(steps, 1)]
    points = [(value, row) for row, value in known if value is not None]
    values = [value for value, _ in points]
    axes.plot(values, [row for _, row in points], color=COLOURS["after"], marker="o", markersize=3.5, linewidth=1)
    low, high = min(values), max(values)
    room = max(high - low, 0.5)
    for index, (value, row) in enumerate(points):
        beside = [values[other] - value for other in (index - 1, index + 1) if 0 <= other < len(values)]
        left = max(beside, default=0.0) > max(-min(beside, default=0.0), 0.05 * room)  # away from the line
        place: Any = {"xytext": (-6 if left else 6, 0), "ha": "right" if left else "left"}
        axes.annotate(f"{value:.1f}", (value, row), fontsize=7.5, va="center", textcoords="offset points", **place)
    for row, step in enumerate(steps, 1):
        verdict = step.verdict
        if verdict.psnr is None:
            label = "as the original" if verdict.accumulated == 0 else "not finite"
            axes.text(low, row, label, va="center", fontsize=7, color=COLOURS["muted"])
    axes.set_xlim(low - 0.65 * room, high + 0.5 * room)
    axes.xaxis.set_visible(False)
    axes.spines.bottom.set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_title("PSNR to original, dB")


def _explain(figure: Figure) -> None:
    from matplotlib.patches import Patch

    handles = [
        Patch(facecolor=COLOURS["added"], label="added by the step"),
        Patch(facecolor=COLOURS["paper"], edgecolor=COLOURS["saved"], hatch="//////", label="saved by the step"),
        Patch(facecolor=COLOURS["after"], label="what is left at the end"),
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=3)
