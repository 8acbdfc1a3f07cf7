"""The cost of each stage, as the paper's Figure 4: by the estimate that decides what is cheap, and in true MACs."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from ...base import spelling, words
from .. import text
from ..model import Report
from ..stages import Drawn, view
from .style import COLOURS, clipped, heading, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH = 7.2
_PANELS = (("vanilla", "MACs as if all convolutions were vanilla"), ("macs", "true MACs"))


def flops(report: Report | Drawn, *, bare: bool = False) -> Figure:
    """The stages as bars, before and after: at the left in MACs by the paper's estimate, with the limit below which a
    stage is cheap, at the right in true MACs.

    Args:
        report: a report, or a distribution.
        bare: without the heading, and the rule below, for a page that has them.
    """
    from matplotlib.figure import Figure

    data = view(report)
    stages, compared = data.stages, data.after is not None
    rule = [] if bare else textwrap.wrap(spelling.printable(cheap_rule(data)), 125)
    rows = max(len(stages), 1) * (0.36 if compared else 0.26)
    with style():
        figure = Figure(figsize=(_WIDTH, 1.35 + rows + 0.14 * len(rule)), layout="constrained")
        if not bare:
            figure.suptitle(heading(data), x=0.01, ha="left", fontsize=10, fontweight="bold")
        figure.set_label(f"{heading(data)}: MACs by stage")
        panels: Any = figure.subplots(1, 2, sharey=True)
        for axes, (key, title) in zip(panels, _PANELS, strict=True):
            _draw(axes, data, key)
            axes.set_title(title)
            axes.xaxis.set_major_formatter(lambda value, _: words.quantity(value))
            axes.xaxis.set_major_locator(_locator())
            axes.set_xlabel(f"MACs at {text.shapes(data.inputs)}")
        if data.cheap.limit:
            _mark_limit(panels[0], data.cheap.limit)
        names = [f"{clipped(stage.name, 30)}{' (cheap)' if stage.cheap else ''}" for stage in stages]
        panels[0].set_yticks(range(len(stages)), names)
        for label, stage in zip(panels[0].get_yticklabels(), stages, strict=True):
            label.set_color(COLOURS["cheap"] if stage.cheap else COLOURS["ink"])
        panels[0].set_ylim(max(len(stages), 1) - 0.4, -0.6)
        if compared:
            above = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0.1}
            panels[1].legend(ncols=2, handlelength=1.2, columnspacing=1, **above)
        if rule:
            figure.supxlabel("\n".join(rule), x=0.01, ha="left", fontsize=7.5, color=COLOURS["muted"])
    return figure


def cheap_rule(data: Drawn) -> str:
    """A sentence on which stages are cheap."""
    rule = data.cheap.rule
    never = "; stem and head never count" if data.anatomy.is_unet else ""
    return f"{rule[:1].upper()}{rule[1:]}{never}."


def _locator() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=4)


def _draw(axes: Any, data: Drawn, key: str) -> None:
    stages = data.stages
    states = [("before", [getattr(stage, key) for stage in stages])]
    if data.after is not None:
        states.append((f"after {clipped(data.roadmap or '', 18)}", [getattr(s.after, key, 0) for s in stages]))
    height = 0.76 / len(states)
    for index, (label, values) in enumerate(states):
        rows = [row + (index - (len(states) - 1) / 2) * height for row in range(len(stages))]
        role = "after" if index or len(states) == 1 else "before"
        bars = axes.barh(rows, [float(value) for value in values], height, color=COLOURS[role], label=label)
        for row, bar in enumerate(bars):
            bar.set_gid(f"{key}-{label.split()[0]}-{row}")
    axes.set_xlim(0, max((float(value) for _, values in states for value in values), default=0) * 1.04 or 1)


def _mark_limit(axes: Any, limit: float) -> None:
    """A line at the limit; what lies below it is shaded."""
    axes.axvspan(0, limit, color=COLOURS["band"], zorder=0)
    axes.axvline(limit, color=COLOURS["cheap"], linewidth=1, linestyle="--", zorder=3)
    axes.set_xlim(0, max(axes.get_xlim()[1], 1.1 * limit))
    axes.annotate(
        f"cheap below {words.quantity(limit)}",
        (limit, 0),  # at the foot, where the head is, which costs least: there bars seldom reach it
        (3, 3),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        va="bottom",
        fontsize=7,
        color=COLOURS["cheap"],
    )
