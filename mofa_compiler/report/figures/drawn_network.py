"""The network drawn as a U, by the layout that terminals have: stages as boxes with bars for their MACs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ...base import spelling, words
from ..canvas import Cell
from ..drawing import costs, further_skips
from ..layout import Box, Form, Layout, Lines, UShapes
from ..model import Report
from ..stages import OUTCOMES, Drawn, DrawnStage, Outcome, RewrittenStage, view
from .style import COLOURS, clipped, heading, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMN, _ROW = 0.074, 0.15
"""Inches of a character"""

_MARGIN = 0.15
_COLUMNS = 98
"""Of stages in lines"""

_HATCHES = {"adjusted": "..", "approximate": "////", "refused": "\\\\\\\\"}


def unet(report: Report | Drawn) -> Figure:
    """The U-Nets of a network, or, of a network that is none, its stages in lines, with the reason.

    A bar in each box stands for the MACs that a stage has after the roadmap, a dashed outline for those it had before.
    Its colour says whether the layers were edited, exactly or not, or only refused. In an SVG the box of stage `i` has
    the id `stage-i`, by its place in `before.stages`.

    Args:
        report: a report, or a distribution.
    """
    with style():
        return _Drawing(view(report)).figure


class _Drawing:
    def __init__(self, data: Drawn):
        from matplotlib.figure import Figure

        self.data = data
        self.stages = data.by_name
        self.index = {stage.name: index for index, stage in enumerate(data.stages)}
        self.most = float(max((state.macs for stage in data.stages for state in stage.states), default=0)) or 1.0
        layouts, self.undrawn = _layouts(data)
        above, below = self._words(), self._meaning()
        legend = 0.32 if any(_outcome(stage) for stage in data.stages) else 0.08
        columns = max((box.right for one in layouts for box in one.boxes.values()), default=0) + 3
        rows = [max((box.bottom for box in one.boxes.values()), default=0) + 2 for one in layouts]
        self.width = max(2 * _MARGIN + columns * _COLUMN, 7.2)
        self.total = 0.3 + 0.17 * len(above) + sum(rows) * _ROW + legend + 0.15 * len(below)
        self.figure = Figure(figsize=(self.width, self.total))
        self.figure.set_label(f"{heading(data)}: the network by stages")
        self.axes: Any = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, self.width), ylim=(self.total, 0))
        self.axes.axis("off")
        for row, (line, options) in enumerate(above):
            self._write(_MARGIN, 0.2 + 0.17 * row, line, **options)
        self.left = (self.width - columns * _COLUMN) / 2
        self.top = 0.3 + 0.17 * len(above) - (0 if data.is_cascade else 0.1)
        for layout, height in zip(layouts, rows, strict=True):
            self._draw(layout)
            self.top += height * _ROW
        for row, line in enumerate(below):
            self._write(
                _MARGIN, self.total - 0.15 * (len(below) - row) + 0.02, line, fontsize=6.8, color=COLOURS["muted"]
            )
        self._draw_legend(self.top + 0.15)

    def _write(self, x: float, y: float, words: str, **options: Any) -> None:
        self.axes.text(x, y, spelling.printable(words), **{"va": "center", **options})

    def _at(self, cell: Cell) -> tuple[float, float]:
        """The middle of a character."""
        row, column = cell
        return self.left + (column + 0.5) * _COLUMN, self.top + (row + 0.5) * _ROW

    def _draw(self, layout: Layout) -> None:
        if isinstance(layout, UShapes):
            self._draw_levels(layout)
        elif self.data.passes:
            self._write(_MARGIN, self._at((1, 0))[1], "aside", fontsize=7.5, color=COLOURS["muted"])
        for cell, said in layout.headings:
            x, y = self._at(cell)
            self._write(x, y - _ROW / 2, said, fontsize=9, fontweight="bold")
        for route in layout.flow:
            self._arrow(route, "line", linewidth=0.9, zorder=2)
        for route in layout.skips.values():
            self._arrow(route, "skip", linewidth=1, zorder=2.5)
        for (row, column), said in layout.canvas.labels:
            self._label((row, column + len(said) // 2), said.strip())
        for ends, said in layout.nameless.items():  # beside the middle of the longest part
            (row, column), (end, last) = max(pairwise(layout.skips[ends]), key=_length)
            self._label(
                ((row + end) // 2, (column + last) // 2 - (row != end)), said, "right" if row != end else "center"
            )
        for name, box in layout.boxes.items():
            self._draw_box(name, box, aside=bool(self.data.passes) and isinstance(layout, Lines))

    def _label(self, cell: Cell, said: str, side: str = "center") -> None:
        """What merges a skip, on its line or beside it."""
        around = {"boxstyle": "round,pad=0.12", "facecolor": COLOURS["paper"], "edgecolor": "none"}
        colour = COLOURS["skip"]
        self._write(*self._at(cell), said, fontsize=6.8, color=colour, ha=side, bbox=around, zorder=2.6)

    def _draw_levels(self, layout: UShapes) -> None:
        from matplotlib.patches import Rectangle

        levels = [level for _, level in layout.rows()]
        for index, level in enumerate(sorted(set(levels))):
            first, last = levels.index(level), len(levels) - levels[::-1].index(level)
            y, end = (self.top + (layout.top(row) - 0.5) * _ROW for row in (first, last))
            if index % 2 == 0:
                band = Rectangle((0, y), self.width, end - y, color=COLOURS["band"], linewidth=0, zorder=0)
                self.axes.add_patch(band)
            self._write(_MARGIN, (y + end) / 2, f"level {level}", fontsize=7.5, color=COLOURS["muted"])

    def _draw_box(self, name: str, box: Box, aside: bool) -> None:
        from matplotlib.patches import Rectangle

        stage = self.stages[name]
        x, y = self.left + box.left * _COLUMN, self.top + box.top * _ROW
        width, height = (box.right + 1 - box.left) * _COLUMN, (box.bottom + 1 - box.top) * _ROW
        edge: dict[str, Any] = {"edgecolor": COLOURS["ink"], "linewidth": 0.6}
        style = ":" if aside else "-"
        frame = Rectangle((x, y), width, height, facecolor=COLOURS["paper"], linestyle=style, zorder=3, **edge)
        frame.set_gid(f"stage-{self.index[name]}")
        self.axes.add_patch(frame)
        colour = COLOURS["cheap"] if stage.cheap else COLOURS["ink"]
        self._write(x + _COLUMN, y + 0.8 * _ROW, box.title, fontsize=7.5, fontweight="bold", color=colour, zorder=4)
        for row, line in enumerate(box.lines, 1):
            beside = row == 1 or (row == len(box.lines) and isinstance(stage, RewrittenStage))
            font = {"fontsize": 6.2, "color": COLOURS["muted"]} if beside else {"fontsize": 6.8}
            self._write(x + _COLUMN, y + (row + 0.8) * _ROW, line, zorder=4, **font)
        room, outcome = width - 2 * _COLUMN, _outcome(stage)
        place, thick = (x + _COLUMN, y + height - 0.7 * _ROW), 0.45 * _ROW
        fill: dict[str, Any] = {"facecolor": COLOURS[outcome or "after"], "hatch": _HATCHES.get(outcome or "")}
        now, was = (room * float(state.macs) / self.most for state in (stage.after or stage, stage))
        self.axes.add_patch(Rectangle(place, now, thick, zorder=3.1, **fill, **edge))
        if was != now:
            before: dict[str, Any] = {"edgecolor": COLOURS["ink"], "linewidth": 0.7, "linestyle": (0, (3, 2))}
            around = (place[0], place[1] - 0.1 * _ROW)
            self.axes.add_patch(Rectangle(around, was, thick + 0.2 * _ROW, facecolor="none", zorder=3.2, **before))

    def _arrow(self, route: Sequence[Cell], colour: str, **options: Any) -> None:
        """Along the corners, up to the box behind the last of them."""
        from matplotlib.patches import FancyArrowPatch
        from matplotlib.path import Path

        points = [self._at(cell) for cell in route]
        (x, y), (end_x, end_y) = points[-2:]
        reach = (_COLUMN / 2 * ((end_x > x) - (end_x < x)), _ROW / 2 * ((end_y > y) - (end_y < y)))
        points[-1] = (end_x + reach[0], end_y + reach[1])
        arrow = FancyArrowPatch(path=Path(points), arrowstyle="-|>", mutation_scale=7, color=COLOURS[colour], **options)
        self.axes.add_patch(arrow)

    def _words(self) -> list[tuple[str, dict[str, Any]]]:
        before, after = self.data.before, self.data.after
        amounts = f"{words.quantity(before.macs)} MACs, {words.quantity(before.parameters)} parameters"
        if after:
            amounts = (
                f"{words.quantity(before.macs)} → {words.quantity(after.macs)} MACs, "
                f"{words.quantity(before.parameters)} → {words.quantity(after.parameters)} parameters"
            )
        lines: list[tuple[str, dict[str, Any]]] = [
            (heading(self.data), {"fontsize": 10, "fontweight": "bold"}),
            (amounts, {"fontsize": 8}),
        ]
        if not self.data.passes:
            why = f"No U to draw, so its stages in lines: {self.data.anatomy.reason}"
            lines.append((clipped(why, 130), {"fontsize": 7.5, "color": COLOURS["muted"]}))
        return lines

    def _meaning(self) -> list[str]:
        """How to read it, and the long skips for which no line was drawn."""
        meaning = "length of a bar: MACs"
        meaning += "; dashed: before" if self.data.after else "; above it: MACs / parameters"
        meaning += "; level k works at 1/2^k of the input's size" if self.data.passes else ""
        return [clipped(further_skips(self.data, self.undrawn), 150)] * bool(self.undrawn) + [meaning]

    def _draw_legend(self, y: float) -> None:
        from matplotlib.patches import Patch

        handles = [
            Patch(facecolor=COLOURS[one], edgecolor=COLOURS["ink"], linewidth=0.6, hatch=_HATCHES.get(one), label=said)
            for one, said in OUTCOMES.items()
            if any(_outcome(stage) == one for stage in self.data.stages)
        ]
        if handles:
            self.axes.legend(
                handles=handles,
                loc="center left",
                bbox_to_anchor=(_MARGIN / self.width, 1 - y / self.total),
                ncols=len(handles),
                borderaxespad=0,
                handlelength=1.6,
                columnspacing=1.4,
            )


def _length(part: tuple[Cell, Cell]) -> float:
    (row, column), (end, last) = part
    return abs(end - row) * _ROW + abs(last - column) * _COLUMN


def _layouts(data: Drawn) -> tuple[list[Layout], dict[tuple[str, str], str]]:
    """What is drawn from top to bottom, and the long skips for which there is no way."""
    form = Form(True, True, True)
    if not data.passes:
        return [Lines(data.stages, form, _content, _COLUMNS, flow=True)], {}
    shapes = UShapes(data.passes, data, form, _content)
    shapes.draw(data.joins, numbered=data.is_cascade)
    width = max(box.right for box in shapes.boxes.values()) + 1
    stages = data.by_name
    asides = [Lines([stages[name] for name in data.aside], form, _content, width)] if data.aside else []
    return [shapes, *asides], {ends: kinds for ends, kinds in data.joins.items() if ends not in shapes.skips}


def _content(stage: DrawnStage, form: Form, whole_name: bool) -> tuple[str, list[str]]:
    """Title and lines of a stage."""
    title = f"{clipped(stage.title(whole=whole_name), 24)}{' (cheap)' * stage.cheap}"
    happened = [_happened(stage)] if isinstance(stage, RewrittenStage) else []
    return title, [stage.module, *_amounts(stage), *happened]


def _amounts(stage: DrawnStage) -> list[str]:
    """With a roadmap two lines, each with room for what it counts."""
    after = stage.after
    if after is None:
        return costs(stage)
    lines = []
    for pair, noun in (((stage.macs, after.macs), "MACs"), ((stage.parameters, after.parameters), "params")):
        lines.append(f"{' → '.join(dict.fromkeys(map(words.quantity, pair)))} {noun}")
    return lines


def _outcome(stage: DrawnStage) -> Outcome | None:
    return stage.outcome if isinstance(stage, RewrittenStage) else None


def _happened(stage: RewrittenStage) -> str:
    """`3 layers edited`, `2 refused`, with how many of the other."""
    parts: Iterable[str] = (
        f"{words.count(stage.edits, 'layer')} edited" if stage.edits else "",
        f"{stage.refusals} refused" if stage.refusals else "",
    )
    return ", ".join(filter(None, parts)) or "unchanged"
