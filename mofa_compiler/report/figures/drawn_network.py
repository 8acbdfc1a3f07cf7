"""The network drawn as a U: stages as blocks sized by their MACs, skips across, coloured by what happened to them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from ...base import spelling, words
from ..arrangement import Arrangement, Place, arrange
from ..document.terminal import shortened
from ..drawing import costs
from ..model import Report
from ..stages import OUTCOMES, Drawn, DrawnStage, Outcome, RewrittenStage, view
from .style import COLOURS, clipped, heading, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH, _TALLEST, _LEAST = 0.85, 0.62, 0.02
_LABEL, _LINE, _GAP = 1.55, 0.135, 0.07
_BETWEEN_ROWS, _BETWEEN_SIDES, _BETWEEN_PASSES = 0.22, 0.8, 0.4
_MARGIN, _LEVELS, _BULGE, _STEP = 0.15, 0.55, 0.25, 0.22
_NARROWEST = 7.2
_HATCHES = {"adjusted": "..", "approximate": "////", "refused": "\\\\\\\\"}


def unet(report: Report | Drawn, *, links: bool = False) -> Figure:
    """The U-Nets of a network, or, of a network that is none, its stages in a row, with the reason.

    A block's area stands for the MACs that a stage has after the roadmap, a dashed outline for those it had before. Its
    colour says whether its layers were edited, exactly or not, or only refused. In an SVG the block of stage `i` has
    the id `stage-i`, by its place in `before.stages`.

    Args:
        report: a report, or a distribution.
    """
    with style():
        return _Drawing(view(report)).figure


Side = Literal["left", "right", "below"]


@dataclass(frozen=True)
class _Block:
    """A stage on the page: centre and height, in inches; y goes down. Its label is at one `side`."""

    centre: float
    middle: float
    height: float
    side: Side

    @property
    def x(self) -> float:
        return self.centre - _WIDTH / 2

    @property
    def right(self) -> float:
        return self.centre + _WIDTH / 2

    @property
    def y(self) -> float:
        return self.middle - self.height / 2

    @property
    def bottom(self) -> float:
        return self.middle + self.height / 2


class _Drawing:
    def __init__(self, data: Drawn):
        from matplotlib.figure import Figure

        self.data = data
        self.stages = data.by_name
        self.index = {stage.name: index for index, stage in enumerate(data.stages)}
        self.most = float(max((state.macs for stage in data.stages for state in stage.states), default=0)) or 1.0
        self.arrangement: Arrangement = arrange(data.passes, data.levels, data.skips)
        outcomes = any(isinstance(stage, RewrittenStage) for stage in data.stages)
        self.lines = 3 + (data.after is not None) + outcomes
        self.row = max(_TALLEST, self.lines * _LINE)

        passes, depth = len(data.passes), max(self.arrangement.depth, 1)
        self.step = min(_STEP, 1.2 / (max(passes, 1) * depth))
        self.pass_width = 2 * (_LABEL + _GAP + _WIDTH + self.step * depth) + _BETWEEN_SIDES
        wanted = 2 * _MARGIN + _LEVELS + passes * (self.pass_width + _BETWEEN_PASSES) - _BETWEEN_PASSES
        self.width = max(wanted, _NARROWEST)
        self.left = _MARGIN + _LEVELS + (self.width - wanted) / 2 * (passes > 0)
        words = self._words()
        self.top = 0.2 + 0.17 * len(words) + 0.15 + 0.25 * (passes > 1)
        tops, bottom = self._rows()

        asides = data.aside if passes else [stage.name for stage in data.stages]
        cell = _LABEL + _WIDTH + 0.3 if passes else _LABEL + 0.15
        self.across = max(int((self.width - _MARGIN - _LEVELS * (passes > 0) - _MARGIN) / cell), 1)
        lines = -(-len(asides) // self.across)
        pitch = self.row + (0 if passes else self.lines * _LINE + _GAP) + _BETWEEN_ROWS
        self.total = bottom + lines * pitch + 0.5
        self.figure = Figure(figsize=(self.width, self.total))
        self.figure.set_label(f"{heading(data)}: the network by stages")
        self.axes: Any = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, self.width), ylim=(self.total, 0))
        self.axes.axis("off")

        self._draw_levels(tops, bottom)
        blocks = self._place(tops)
        aside = {name: self._aside(name, number, bottom, cell, pitch) for number, name in enumerate(asides)}
        self._draw_flow(blocks if passes else aside)
        self._draw_skips(blocks)
        for name, block in {**blocks, **aside}.items():
            self._draw_block(name, block, aside=bool(passes) and name in aside)
        if passes and aside:
            self._write(_MARGIN, bottom + self.row / 2, "aside", fontsize=7.5, color=COLOURS["muted"])
        for row, (line, options) in enumerate(words):
            self._write(_MARGIN, 0.2 + 0.17 * row, line, **options)
        self._draw_legend()

    def _write(self, x: float, y: float, words: str, **options: Any) -> None:
        self.axes.text(x, y, spelling.printable(words), **{"va": "center", **options})

    def _rows(self) -> tuple[list[float], float]:
        """Upper edge of each row, and the lower one of the last; where a U turns, the label needs room below."""
        turning = {p.row for places in self.arrangement.passes for p in places if p.side == "middle"}
        tops, y = [], self.top
        for row in range(len(self.arrangement.levels)):
            tops.append(y)
            below = self.lines * _LINE + _GAP if row in turning else 0.0
            y += (_TALLEST + below if row in turning else self.row) + _BETWEEN_ROWS
        return tops, y

    def _draw_levels(self, tops: list[float], bottom: float) -> None:
        from matplotlib.patches import Rectangle

        levels = self.arrangement.levels
        for index, level in enumerate(sorted(set(levels))):
            rows = [row for row, one in enumerate(levels) if one == level]
            y = tops[rows[0]] - _BETWEEN_ROWS / 2
            end = (tops[rows[-1] + 1] if rows[-1] + 1 < len(tops) else bottom) - _BETWEEN_ROWS / 2
            if index % 2 == 0:
                band = Rectangle((0, y), self.width, end - y, color=COLOURS["band"], linewidth=0, zorder=0)
                self.axes.add_patch(band)
            self._write(_MARGIN, (y + end) / 2, f"level {level}", fontsize=7.5, color=COLOURS["muted"])

    def _place(self, tops: list[float]) -> dict[str, _Block]:
        blocks = {}
        for index, (shape, places) in enumerate(zip(self.data.passes, self.arrangement.passes, strict=True)):
            origin = self.left + index * (self.pass_width + _BETWEEN_PASSES)
            if len(self.data.passes) > 1:
                self._write(origin, self.top - 0.25, f"pass {shape.number}", fontsize=9, fontweight="bold")
            for place in places:
                middle = tops[place.row] + (_TALLEST if place.side == "middle" else self.row) / 2
                side: Side = "below" if place.side == "middle" else place.side
                blocks[place.stage] = self._block(place.stage, origin + self._centre(place), middle, side)
        return blocks

    def _block(self, name: str, centre: float, middle: float, side: Side) -> _Block:
        stage = self.stages[name]
        return _Block(centre, middle, self._height((stage.after or stage).macs), side)

    def _height(self, macs: float) -> float:
        return max(_TALLEST * float(macs) / self.most, _LEAST)

    def _reach(self, stage: DrawnStage) -> float:
        """Height of the taller one of a block and its outline; in a row all labels begin at the same height."""
        return max(self._height(state.macs) for state in stage.states) if self.data.passes else _TALLEST

    def _centre(self, place: Place) -> float:
        """Of a block, from the left edge of its U."""
        inset = _LABEL + _GAP + place.indent * self.step + _WIDTH / 2
        return {"left": inset, "right": self.pass_width - inset, "middle": self.pass_width / 2}[place.side]

    def _aside(self, name: str, number: int, top: float, cell: float, pitch: float) -> _Block:
        """A stage on no U-Net, in lines below them; where there is no U-Net, in lines with the label below."""
        line, column = divmod(number, self.across)
        if not self.data.passes:
            return self._block(name, _MARGIN + (column + 0.5) * cell, top + line * pitch + _TALLEST / 2, "below")
        centre = _MARGIN + _LEVELS + column * cell + _LABEL + _GAP + _WIDTH / 2
        return self._block(name, centre, top + line * pitch + self.row / 2, "left")

    def _draw_block(self, name: str, block: _Block, aside: bool) -> None:
        from matplotlib.patches import Rectangle

        stage = self.stages[name]
        outcome = _outcome(stage)
        fill = COLOURS[outcome] if outcome else COLOURS["after"]
        shape = Rectangle(
            (block.x, block.y),
            _WIDTH,
            block.height,
            facecolor=fill,
            edgecolor=COLOURS["ink"],
            hatch=_HATCHES.get(outcome or ""),
            linewidth=0.6,
            linestyle=":" if aside else "-",
            zorder=3,
        )
        shape.set_gid(f"stage-{self.index[name]}")
        self.axes.add_patch(shape)
        if stage.after and stage.after.macs != stage.macs:
            was = self._height(stage.macs)
            outline = Rectangle(
                (block.x, block.middle - was / 2),
                _WIDTH,
                was,
                facecolor="none",
                edgecolor=COLOURS["muted"],
                linewidth=0.7,
                linestyle="--",
                zorder=3.2,
            )
            self.axes.add_patch(outline)
        self._draw_label(stage, block, aside)

    def _draw_label(self, stage: DrawnStage, block: _Block, aside: bool) -> None:
        name = shortened(spelling.printable(stage.title(whole=aside or not self.data.passes)), 22)
        lines: list[tuple[str, dict[str, Any]]] = [
            (name + (" (cheap)" if stage.cheap else ""), {"fontsize": 7.5, "fontweight": "bold"}),
            (shortened(stage.module, 27), {"fontsize": 6.2, "color": COLOURS["muted"]}),
            *((line, {"fontsize": 6.8}) for line in _amounts(stage)),
        ]
        if isinstance(stage, RewrittenStage):
            lines.append((_happened(stage), {"fontsize": 6.2, "color": COLOURS["muted"]}))
        if stage.cheap:
            lines[0][1]["color"] = COLOURS["cheap"]
        if block.side == "below":
            x, align, y = block.centre, "center", block.middle + self._reach(stage) / 2 + _GAP + _LINE / 2
        else:
            x = block.x - _GAP if block.side == "left" else block.right + _GAP
            align = "right" if block.side == "left" else "left"
            y = block.middle - (len(lines) - 1) / 2 * _LINE
        for row, (line, options) in enumerate(lines):
            self._write(x, y + row * _LINE, line, ha=align, zorder=4, **options)

    def _arrow(self, start: tuple[float, float], end: tuple[float, float], colour: str, **options: Any) -> None:
        from matplotlib.patches import FancyArrowPatch

        arrow = FancyArrowPatch(
            start, end, arrowstyle="-|>", mutation_scale=7, color=COLOURS[colour], shrinkA=0, shrinkB=0, **options
        )
        self.axes.add_patch(arrow)

    def _draw_flow(self, blocks: Mapping[str, _Block]) -> None:
        options: dict[str, Any] = {"colour": "line", "linewidth": 0.9, "zorder": 2}
        for earlier, later in pairwise(blocks.values()):
            left, right = max(earlier.x, later.x), min(earlier.right, later.right)
            if (earlier.side, later.side) == ("right", "left"):  # into the next U-Net, over the labels
                y = min(earlier.middle, later.middle) - (self.row + _BETWEEN_ROWS) / 2
                self._line([(earlier.centre, earlier.y), (earlier.centre, y), (later.centre, y)])
                self._arrow((later.centre, y), (later.centre, later.y), **options)
            elif abs(earlier.middle - later.middle) < _LEAST and earlier.right < later.x:
                self._arrow((earlier.right, earlier.middle), (later.x, later.middle), **options)
            elif right - left > 0.2 and earlier.side != "below":
                x = (left + right) / 2
                down = later.middle > earlier.middle
                first, last = (earlier.bottom, later.y) if down else (earlier.y, later.bottom)
                self._arrow((x, first), (x, last), **options)
            elif earlier.side == later.side == "below":  # to the next line of a row
                self._wrap_around(earlier, later, options)
            elif later.middle > earlier.middle:
                start, end = (earlier.centre, earlier.bottom), (later.x, later.middle)
                self._arrow(start, end, connectionstyle="angle,angleA=90,angleB=0", **options)
            else:
                start, end = (earlier.right, earlier.middle), (later.centre, later.bottom)
                self._arrow(start, end, connectionstyle="angle,angleA=0,angleB=90", **options)

    def _wrap_around(self, earlier: _Block, later: _Block, options: Mapping[str, Any]) -> None:
        y = later.middle - _TALLEST / 2 - _BETWEEN_ROWS / 2
        x, end = earlier.centre + 0.82, later.centre - 0.82  # past the labels
        self._line([(earlier.right, earlier.middle), (x, earlier.middle), (x, y), (end, y), (end, later.middle)])
        self._arrow((end, later.middle), (later.x, later.middle), **options)

    def _line(self, corners: Sequence[tuple[float, float]]) -> None:
        self.axes.plot(*zip(*corners, strict=True), color=COLOURS["line"], linewidth=0.9, zorder=2)

    def _draw_skips(self, blocks: Mapping[str, _Block]) -> None:
        for (source, target), kinds in self.data.joins.items():
            if source == target or source not in blocks or target not in blocks:
                continue
            start, end = blocks[source], blocks[target]
            path = None
            if start.right < end.x:
                first, last = (start.right, start.middle), (end.x, end.middle)
                label = ((first[0] + last[0]) / 2, (first[1] + last[1]) / 2)
            else:  # both on the same side: bent towards the inside, where there are no labels
                inside = -1 if start.side == "right" else 1
                first, last = ((block.x if inside < 0 else block.right, block.middle) for block in (start, end))
                across, along = last[0] - first[0], last[1] - first[1]
                bend = math.copysign(2 * _BULGE / math.hypot(across, along), -along * inside)
                label = ((first[0] + last[0] - bend * along) / 2, (first[1] + last[1] + bend * across) / 2)
                path = f"arc3,rad={bend:.4f}"
            self._arrow(first, last, "skip", linewidth=1, zorder=2.5, connectionstyle=path)
            around = {"boxstyle": "round,pad=0.12", "facecolor": COLOURS["paper"], "edgecolor": "none"}
            self._write(*label, kinds, fontsize=6.8, color=COLOURS["skip"], ha="center", bbox=around, zorder=2.6)

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
            why = f"No U to draw, so its stages in a row: {self.data.anatomy.reason}"
            lines.append((clipped(why, 130), {"fontsize": 7.5, "color": COLOURS["muted"]}))
        return lines

    def _draw_legend(self) -> None:
        from matplotlib.patches import Patch

        met = [outcome for outcome in OUTCOMES if any(_outcome(s) == outcome for s in self.data.stages)]
        y = self.total - 0.34
        if met:
            handles = [
                Patch(
                    facecolor=COLOURS[outcome],
                    edgecolor=COLOURS["ink"],
                    linewidth=0.6,
                    hatch=_HATCHES.get(outcome),
                    label=OUTCOMES[outcome],
                )
                for outcome in met
            ]
            self.axes.legend(
                handles=handles,
                loc="center left",
                bbox_to_anchor=(_MARGIN / self.width, 1 - y / self.total),
                ncols=len(handles),
                borderaxespad=0,
                handlelength=1.6,
                columnspacing=1.4,
            )
        meaning = "area of a block: its MACs"
        meaning += "; dashed: before" if self.data.after else ""
        meaning += "" if self.data.after else "; beside it: MACs / parameters"
        meaning += "; level k works at 1/2^k of the input's size" if self.data.passes else ""
        self._write(_MARGIN, self.total - 0.13, meaning, fontsize=6.8, color=COLOURS["muted"])


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
