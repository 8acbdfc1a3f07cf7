"""The network drawn as a U, in a file; needs matplotlib (the extra `plot`)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..errors import MofaError
from . import text
from .arrangement import Place, arrange
from .drawing import costs, shortened, times, title, units
from .plot import save

_WIDTH, _LINE, _PADDING = 2.2, 0.16, 0.1
_BETWEEN_ROWS, _BETWEEN_SIDES, _BETWEEN_PASSES = 0.34, 1.0, 0.7
_MARGIN, _LEVELS, _BULGE = 0.3, 0.75, 0.3
_FILL, _SKIP, _FLOW, _CHEAP = "#3d5a80", "#b5532a", "0.35", "#2a9d8f"
_LEAST_SHADE, _MOST_SHADE = 0.06, 0.5


def draw_figure(data: Mapping[str, Any], path: Path) -> None:
    """Draw the U-Nets of `report.distribution.distribution`; writes all of the file or nothing.

    Raises:
        MofaError: the network is no U-Net, matplotlib is not installed, or the file's ending names no format.
        OSError: the file cannot be written.
    """
    if not data["passes"]:
        raise MofaError(f"cannot draw {path}: {data['model']} is no U-Net: {data['anatomy']['reason']}")
    save(lambda: _Figure(data).figure, path)


@dataclass(frozen=True)
class _Block:
    """A stage on the page: left and upper edge and height, in inches; y goes down."""

    x: float
    y: float
    height: float

    @property
    def bottom(self) -> float:
        return self.y + self.height

    @property
    def middle(self) -> float:
        return self.y + self.height / 2

    @property
    def right(self) -> float:
        return self.x + _WIDTH

    @property
    def centre(self) -> float:
        return self.x + _WIDTH / 2


class _Figure:
    def __init__(self, data: Mapping[str, Any]):
        from matplotlib.figure import Figure

        self.data = data
        self.stages = {stage["name"]: stage for stage in data["stages"]}
        levels = {name: stage["level"] for name, stage in self.stages.items()}
        self.arrangement = arrange(data["passes"], levels, data["skips"])
        self.most = max(stage["macs"] for stage in data["stages"]) or 1
        self.height = _LINE * (3 if data["after"] is None else 4) + 2 * _PADDING
        self.pitch = self.height + _BETWEEN_ROWS
        passes, depth = len(data["passes"]), max(self.arrangement.depth, 1)
        self.step = min(0.6, 3 / (passes * depth))
        self.pass_width = 2 * _WIDTH + 2 * self.step * depth + _BETWEEN_SIDES
        self.top = 0.75 + 0.25 * (passes > 1)
        bottom = self.top + self.pitch * len(self.arrangement.levels)
        self.width = _MARGIN + _LEVELS + passes * (self.pass_width + _BETWEEN_PASSES) - _BETWEEN_PASSES + _MARGIN
        self.across = max(int((self.width - _MARGIN - _LEVELS) / (_WIDTH + 0.2)), 1)
        asides = -(-len(data["aside"]) // self.across)
        self.total = bottom + asides * self.pitch + 0.3
        self.figure = Figure(figsize=(self.width, self.total))
        self.axes: Any = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, self.width), ylim=(self.total, 0))
        self.axes.axis("off")
        self._draw_levels()
        blocks = self._draw_passes()
        self._draw_flow(blocks)
        self._draw_skips(blocks)
        self._draw_aside(bottom)
        self._draw_words()

    def _write(self, x: float, y: float, words: str, **options: Any) -> None:
        # No mathematics: a name may hold dollar signs.
        self.axes.text(x, y, text.printable(words), parse_math=False, **{"va": "center", **options})

    def _draw_levels(self) -> None:
        from matplotlib.patches import Rectangle

        levels = self.arrangement.levels
        for index, level in enumerate(sorted(set(levels))):
            y = self.top + levels.index(level) * self.pitch - _BETWEEN_ROWS / 2
            height = levels.count(level) * self.pitch
            if index % 2 == 0:
                self.axes.add_patch(Rectangle((0, y), self.width, height, color="0.965", linewidth=0, zorder=0))
            self._write(_MARGIN, y + height / 2, f"level {level}", fontsize=8, color="0.4")

    def _draw_passes(self) -> dict[str, _Block]:
        blocks = {}
        for index, (shape, places) in enumerate(zip(self.data["passes"], self.arrangement.passes, strict=True)):
            origin = _MARGIN + _LEVELS + index * (self.pass_width + _BETWEEN_PASSES)
            if len(self.data["passes"]) > 1:
                self._write(origin, self.top - 0.25, f"pass {shape['number']}", fontsize=9, fontweight="bold")
            for place in places:
                block = _Block(self._x(place, origin), self.top + place.row * self.pitch, self.height)
                self._draw_block(block, self.stages[place.stage])
                blocks[place.stage] = block
        return blocks

    def _x(self, place: Place, origin: float) -> float:
        inset = place.indent * self.step
        if place.side == "middle":
            return origin + (self.pass_width - _WIDTH) / 2
        return origin + inset if place.side == "left" else origin + self.pass_width - inset - _WIDTH

    def _draw_block(self, block: _Block, stage: Mapping[str, Any], aside: bool = False) -> None:
        from matplotlib.colors import to_rgb
        from matplotlib.patches import FancyBboxPatch

        shade = _LEAST_SHADE + (_MOST_SHADE - _LEAST_SHADE) * stage["macs"] / self.most
        colour = tuple(1 - shade * (1 - channel) for channel in to_rgb(_FILL))
        box = FancyBboxPatch(
            (block.x, block.y),
            _WIDTH,
            block.height,
            boxstyle="round,pad=0,rounding_size=0.06",
            facecolor=colour,
            edgecolor=_CHEAP if stage["cheap"] else _FILL,
            linewidth=1.6 if stage["cheap"] else 0.8,
            linestyle=":" if aside else "--" if stage["cheap"] else "-",
            zorder=3,
        )
        self.axes.add_patch(box)
        x, y = block.x + _PADDING, block.y + _PADDING + _LINE / 2
        self._write(x, y, title(stage, whole=aside), fontsize=8.5, fontweight="bold", zorder=4)
        level = "no level" if stage["level"] is None else f"level {stage['level']}"
        remark, colour_of_remark = (level, "0.35") if aside else ("cheap" if stage["cheap"] else "", _CHEAP)
        self._write(block.right - _PADDING, y, remark, fontsize=7, color=colour_of_remark, ha="right", zorder=4)
        lines = [shortened(units(stage), 33), *costs(stage)]
        for row, line in enumerate(lines, 1):
            size, shade = (6.8, 0.35) if row == 1 else (7.5, 0.1)
            self._write(x, y + row * _LINE, line, fontsize=size, color=str(shade), zorder=4, clip_path=box)

    def _arrow(self, start: tuple[float, float], end: tuple[float, float], colour: str, **options: Any) -> None:
        from matplotlib.patches import FancyArrowPatch

        arrow = FancyArrowPatch(
            start, end, arrowstyle="-|>", mutation_scale=8, color=colour, shrinkA=0, shrinkB=0, **options
        )
        self.axes.add_patch(arrow)

    def _draw_flow(self, blocks: Mapping[str, _Block]) -> None:
        for earlier, later in pairwise(blocks.values()):
            left, right = max(earlier.x, later.x), min(earlier.right, later.right)
            if earlier.y == later.y:
                y = earlier.y + 0.75 * earlier.height
                self._arrow((earlier.right, y), (later.x, y), _FLOW, linewidth=1, zorder=2)
            elif right - left > 0.2:
                x = (left + right) / 2
                down = later.y > earlier.y
                first, last = (earlier.bottom, later.y) if down else (earlier.y, later.bottom)
                self._arrow((x, first), (x, last), _FLOW, linewidth=1, zorder=2)
            elif later.y > earlier.y:
                start, end = (earlier.centre, earlier.bottom), (later.x, later.middle)
                self._arrow(start, end, _FLOW, linewidth=1, zorder=2, connectionstyle="angle,angleA=90,angleB=0")
            else:
                start, end = (earlier.right, earlier.middle), (later.centre, later.bottom)
                self._arrow(start, end, _FLOW, linewidth=1, zorder=2, connectionstyle="angle,angleA=0,angleB=90")

    def _draw_skips(self, blocks: Mapping[str, _Block]) -> None:
        joined: dict[tuple[str, str], Counter[str]] = {}
        for skip in self.data["skips"]:
            joined.setdefault((skip["source"], skip["target"]), Counter())[skip["kind"]] += 1
        for (source, target), kinds in joined.items():
            if source == target or source not in blocks or target not in blocks:
                continue
            start, end = blocks[source], blocks[target]
            path = None
            if start.right < end.x:
                first = (start.right, start.y + 0.4 * start.height)
                last = (end.x, end.y + 0.4 * end.height)
                label = ((first[0] + last[0]) / 2, (first[1] + last[1]) / 2)
            else:  # both on the same side: around the outside
                first, last = (start.right, start.middle), (end.right, end.middle)
                across, along = last[0] - first[0], last[1] - first[1]
                bend = math.copysign(2 * _BULGE / math.hypot(across, along), -along)
                label = ((first[0] + last[0] - bend * along) / 2, (first[1] + last[1] + bend * across) / 2)
                path = f"arc3,rad={bend:.4f}"
            self._arrow(first, last, _SKIP, linewidth=1.1, zorder=2.5, connectionstyle=path)
            words = ", ".join(times(number, kind) for kind, number in kinds.items())
            around = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
            self._write(*label, words, fontsize=7, color=_SKIP, ha="center", bbox=around, zorder=2.6)

    def _draw_aside(self, top: float) -> None:
        for index, name in enumerate(self.data["aside"]):
            row, column = divmod(index, self.across)
            block = _Block(_MARGIN + _LEVELS + column * (_WIDTH + 0.2), top + row * self.pitch, self.height)
            self._draw_block(block, self.stages[name], aside=True)
        if self.data["aside"]:
            self._write(_MARGIN, top + self.height / 2, "aside", fontsize=8, color="0.4")

    def _draw_words(self) -> None:
        before = self.data["before"]
        amounts = f"{text.quantity(before['macs'])} MACs, {text.quantity(before['parameters'])} parameters"
        heading = f"{shortened(self.data['model'], 40)} at {text.shapes(self.data)}: {amounts}"
        meaning = "MACs / parameters"
        if self.data["after"]:
            after = self.data["after"]
            amounts = f"{text.quantity(after['macs'])}, {text.quantity(after['parameters'])}"
            heading += f"; after {self.data['roadmap']} {amounts}"
            meaning = "MACs and parameters, before → after"
        self._write(_MARGIN, 0.25, heading, fontsize=10, fontweight="bold")
        legend = f"in each block: {meaning}; the darker, the more MACs; level k works at 1/2^k of the input's size"
        self._write(_MARGIN, self.total - 0.17, legend, fontsize=7, color="0.4")
