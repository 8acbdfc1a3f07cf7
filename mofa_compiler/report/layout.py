"""Networks laid out once, in rows and columns of characters; drawn in characters, and, scaled, as a figure.

The stages of U-Nets stand in rows by level, down at the left and up at the right, those of other networks in lines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from rich.cells import cell_len

from .canvas import Canvas, Cell, Ends
from .document.terminal import shortened
from .stages import Drawn, DrawnStage
from .structure import StageSkip, UShape

_WIDEST_PASS = 100
_WIDEST_BOX = 30
_ROOM_FOR_SKIPS = 7
_BETWEEN_PASSES = 3
GUTTER = 6
"""Columns for what stands at the left of each row"""

Route = list[Cell]
"""Corners, from a cell of one box's border to the one before another's"""

Side = Literal["left", "middle", "right"]


@dataclass(frozen=True)
class Place:
    """One stage's place: row from the top, side of its U, and how many steps it is moved towards the middle."""

    stage: str
    row: int
    side: Side
    indent: int


@dataclass(frozen=True)
class Arrangement:
    """Several U-Nets in common rows.

    Attributes:
        levels: the level of each row.
        passes: for each U-Net its places in execution order.
        depth: the largest indent of a stage that is not in the middle.
    """

    levels: tuple[int, ...]
    passes: tuple[tuple[Place, ...], ...]

    @property
    def depth(self) -> int:
        return max((place.indent for places in self.passes for place in places if place.side != "middle"), default=0)


def arrange(passes: Sequence[UShape], levels: Mapping[str, int], skips: Sequence[StageSkip]) -> Arrangement:
    """Arrange U-Nets in common rows by the levels of their stages."""
    bands = [_bands(shape, levels, skips) for shape in passes]
    rows: list[int] = []
    places: list[list[Place]] = [[] for _ in passes]
    indents = [0] * len(passes)
    for level in sorted({level for band in bands for level in band}):
        pairs = [band.get(level, []) for band in bands]
        height = max(map(len, pairs))
        for index, own in enumerate(pairs):
            for offset, (left, right) in enumerate(own, start=len(rows) + height - len(own)):
                for name, side in ((left, "left"), (right, "right")):
                    if name:
                        places[index].append(Place(name, offset, side, indents[index]))  # type: ignore[arg-type]
                indents[index] += 1
        rows += [level] * height
        turning = [
            (i, shape.bottom) for i, shape in enumerate(passes) if shape.bottom and levels[shape.bottom] == level
        ]
        for index, bottom in turning:
            places[index].append(Place(bottom, len(rows), "middle", indents[index]))
        rows += [level] * bool(turning)
    order = {name: i for shape in passes for i, name in enumerate(shape.stages)}
    return Arrangement(tuple(rows), tuple(tuple(sorted(own, key=lambda p: order[p.stage])) for own in places))


def _bands(
    shape: UShape, levels: Mapping[str, int], skips: Sequence[StageSkip]
) -> dict[int, list[tuple[str | None, str | None]]]:
    """For each level the pairs of a stage at the left and one at the right; stages that a skip joins stand together."""
    joined = {(skip.source, skip.target) for skip in skips}
    bands: dict[int, list[tuple[str | None, str | None]]] = {}
    for level in {levels[name] for name in shape.stages}:
        left = [name for name in shape.descending if levels[name] == level]
        right = [name for name in reversed(shape.ascending) if levels[name] == level]
        offsets = Counter(i - j for i, a in enumerate(left) for j, b in enumerate(right) if (a, b) in joined)
        shift = offsets.most_common(1)[0][0] if offsets else len(left) - len(right)
        first, last = min(0, shift), max(len(left), len(right) + shift)
        bands[level] = [(_at(left, row), _at(right, row - shift)) for row in range(first, last)]
    return bands


def _at(names: Sequence[str], index: int) -> str | None:
    return names[index] if 0 <= index < len(names) else None


@dataclass(frozen=True)
class Form:
    """How much of a stage is shown."""

    boxed: bool
    units: bool
    costs: bool

    @property
    def gap(self) -> int:
        """Rows between one row of stages and the next, for arrows."""
        return 1 if self.boxed else 0


Content = Callable[[DrawnStage, Form, bool], tuple[str, list[str]]]
"""Title and lines of a stage; whether its whole name is needed"""


@dataclass(frozen=True)
class Box:
    """A stage by its outermost cells, and its lines, which fit."""

    top: int
    left: int
    bottom: int
    right: int
    title: str
    lines: tuple[str, ...]

    @property
    def skip_row(self) -> int:
        return min(self.top + 1, self.bottom)

    @property
    def flow_row(self) -> int:
        return max(self.bottom - 1, self.top)


class Layout:
    """Boxes with lines between them, none over another.

    Attributes:
        canvas: all of it in characters.
        boxes: by stage, in execution order.
        flow: from each stage to the next.
        skips: the long skips for which there is a way.
        nameless: what merges those of them that have no room for the words.
        headings: words over a U-Net, with the cell where they begin.
    """

    def __init__(self, form: Form):
        self.form = form
        self.canvas = Canvas()
        self.boxes: dict[str, Box] = {}
        self.flow: list[Route] = []
        self.skips: dict[Ends, Route] = {}
        self.nameless: dict[Ends, str] = {}
        self.headings: list[tuple[Cell, str]] = []

    def _put(self, stage: str, top: int, left: int, width: int, content: tuple[str, Sequence[str]], tag: str) -> None:
        title, lines = content
        if not self.form.boxed:
            line = "  ".join([title, *lines])
            self.canvas.write(top, left, f"{line} ")
            self.boxes[stage] = Box(top, left - 1, top, left + cell_len(line), title, tuple(lines))
            return
        if self.form.units:
            lines = [shortened(lines[0], width - 4), *lines[1:]]
        self.canvas.box(top, left, width, title, lines, tag)
        self.boxes[stage] = Box(top, left, top + len(lines) + 1, left + width - 1, title, tuple(lines))

    def _first_free(self, routes: Iterable[Route], ends: Ends) -> Route | None:
        return next((route for route in routes if self.canvas.connect(route, ends)), None)

    def _connect(self, earlier: str, later: str, routes: Iterable[Route]) -> None:
        if route := self._first_free(routes, (f"> {earlier}", f"> {later}")):
            self.flow.append(route)


class UShapes(Layout):
    """U-Nets side by side; drawn where that `fits`.

    Args:
        passes: the U-Nets.
        data: their network.
        form: how much of each stage is shown.
        content: what is shown of it.
        width: columns that there are; without it, as many as it takes.
    """

    def __init__(self, passes: Sequence[UShape], data: Drawn, form: Form, content: Content, width: int | None = None):
        super().__init__(form)
        self.passes = passes
        self.stages = stages = data.by_name
        self.arrangement: Arrangement = arrange(passes, data.levels, data.skips)
        placed = [place.stage for places in self.arrangement.passes for place in places]
        self.contents = {name: content(stages[name], form, False) for name in placed}
        self.pitch = (2 + max(len(lines) for _, lines in self.contents.values()) if form.boxed else 1) + form.gap
        self.height = self.pitch * len(self.arrangement.levels)
        smallest, wanted = _widths(self.contents.values(), form)
        depth = self.arrangement.depth
        if width is None:
            self.step = max(min(4, 24 // (len(passes) * max(depth, 1))), 1)
            self.box_width, self.fits = wanted, True
            self.pass_width = 2 * (wanted + self.step * depth) + 2 * _ROOM_FOR_SKIPS
        else:
            available = width - GUTTER - _BETWEEN_PASSES * (len(passes) - 1)
            self.pass_width = min(available // len(passes), _WIDEST_PASS)
            self.step, self.box_width, self.fits = _fit(form, self.pass_width, depth, smallest, wanted)

    def draw(self, joins: Mapping[Ends, str], *, numbered: bool) -> None:
        """Put everything in its place; `numbered` U-Nets have a heading."""
        canvas = self.canvas
        canvas.write(0, 0, "level")
        for row, level in self.rows():
            if row == 0 or self.arrangement.levels[row - 1] != level:
                height = self.pitch - self.form.gap
                canvas.write(self.top(row) + (height - 1) // 2, 0, f"{level:>3}")
        for index, (shape, places) in enumerate(zip(self.passes, self.arrangement.passes, strict=True)):
            origin = GUTTER + index * (self.pass_width + _BETWEEN_PASSES)
            if numbered:
                self.headings.append(((0, origin), f"pass {shape.number}"))
                canvas.write(0, origin, f"pass {shape.number}")
            for place in places:
                tag = "cheap" if self.stages[place.stage].cheap else ""
                left = self._left(place, origin)
                self._put(place.stage, self.top(place.row), left, self.box_width, self.contents[place.stage], tag)
        if self.form.boxed:
            for earlier, later in pairwise(self.boxes):
                self._connect(earlier, later, _flow_routes(self.boxes[earlier], self.boxes[later]))
        self._draw_skips({ends: kinds for ends, kinds in joins.items() if {*ends} <= self.boxes.keys()})

    def rows(self) -> Iterator[tuple[int, int]]:
        """Each row's number and level."""
        return enumerate(self.arrangement.levels)

    def top(self, row: int) -> int:
        """The first line of characters of a row."""
        return 1 + row * self.pitch

    def _left(self, place: Place, origin: int) -> int:
        inset, width = place.indent * self.step, self.box_width
        return {
            "left": origin + inset,
            "middle": origin + (self.pass_width - width) // 2,
            "right": origin + self.pass_width - inset - width,
        }[place.side]

    def _draw_skips(self, joins: Mapping[Ends, str]) -> None:
        boxes = self.boxes
        # Straight ones first: what bends can go around them.
        for ends in sorted(joins, key=lambda ends: boxes[ends[0]].top != boxes[ends[1]].top):
            route = self._first_free(_skip_routes(boxes[ends[0]], boxes[ends[1]], self.form.boxed), ends)
            if route:
                self.skips[ends] = route
        labelled: set[Ends] = set()
        for ends, route in self.skips.items():
            if ends not in labelled:
                alike = {other for other in self.skips if joins[other] == joins[ends]}
                labelled |= self.canvas.label(route, f" {joins[ends]} ", alike)
        self.nameless = {ends: joins[ends] for ends in self.skips if ends not in labelled}


class Lines(Layout):
    """Stages next to each other, in as many lines as it takes; with arrows from each to the next where these `flow`."""

    def __init__(self, stages: Sequence[DrawnStage], form: Form, content: Content, width: int, *, flow: bool = False):
        super().__init__(form)
        contents = {stage.name: content(stage, form, True) for stage in stages}
        _, room = _widths(contents.values(), form)
        between = 3 if flow else 1
        across = max((width - GUTTER) // (room + between), 1)
        for index, stage in enumerate(stages):
            row, column = divmod(index, across)
            lines = contents[stage.name][1]
            tag = "" if flow else "no level" if stage.level is None else f"level {stage.level}"
            left = GUTTER + column * (room + between)
            self._put(stage.name, row * (len(lines) + 2 + flow), left, room, contents[stage.name], tag)
        if flow:
            for earlier, later in pairwise(self.boxes):
                self._connect(earlier, later, _line_routes(self.boxes[earlier], self.boxes[later]))


def _fit(form: Form, pass_width: int, depth: int, smallest: int, wanted: int) -> tuple[int, int, bool]:
    """Columns that each row moves towards the middle, width of the boxes, and whether they have room."""
    steps = (4, 3, 2, 1) if form.boxed else (2, 1, 0)
    rooms = {step: (pass_width - _ROOM_FOR_SKIPS - 2 * step * depth) // 2 for step in steps}
    step = next((step for step in steps if rooms[step] >= wanted), None)
    if step is None:
        step = next((step for step in steps[1:] if rooms[step] >= smallest), None)
    return (0, smallest, False) if step is None else (step, min(rooms[step], wanted), True)


def _widths(contents: Iterable[tuple[str, Sequence[str]]], form: Form) -> tuple[int, int]:
    """Columns that the boxes cannot do without, and those that they had better have: modules can be shortened."""
    if not form.boxed:
        longest = max(cell_len("  ".join([title, *lines])) for title, lines in contents) + 2
        return longest, longest
    kept = [(title, *(lines[1:] if form.units else lines)) for title, lines in contents]
    smallest = max(cell_len(line) for lines in kept for line in lines) + 4
    longest = max(cell_len(line) for _, lines in contents for line in lines) + 4
    return smallest, max(smallest, min(longest, _WIDEST_BOX))


def _flow_routes(earlier: Box, later: Box) -> Iterator[Route]:
    """Ways for the arrow from a stage to the next one: straight, or around one corner."""
    columns = range(max(earlier.left, later.left) + 2, min(earlier.right, later.right) - 1)
    if earlier.bottom < later.top:
        yield from ([(earlier.bottom, x), (later.top - 1, x)] for x in columns)
        yield from (
            [(earlier.bottom, x), (later.flow_row, x), (later.flow_row, later.left - 1)]
            for x in range(earlier.right - 2, earlier.left + 1, -1)
            if x < later.left - 2
        )
    elif later.bottom < earlier.top:
        yield from ([(earlier.top, x), (later.bottom + 1, x)] for x in reversed(columns))
        yield from (
            [(earlier.flow_row, earlier.right), (earlier.flow_row, x), (later.bottom + 1, x)]
            for x in range(later.left + 2, later.right - 1)
            if x > earlier.right + 1
        )
    elif earlier.right < later.left - 1:
        yield [(later.flow_row, earlier.right), (later.flow_row, later.left - 1)]


def _skip_routes(source: Box, target: Box, bends: bool) -> Iterator[Route]:
    """Ways for a long skip: straight across, or down into the target's top, or up from the source's top."""
    if source.top == target.top:
        if source.right < target.left - 1:
            yield [(source.skip_row, source.right), (source.skip_row, target.left - 1)]
        return
    if not bends:
        return
    if source.top < target.top:
        for column in range(target.left + 1, target.right):
            if column > source.right + 1:
                yield [(source.skip_row, source.right), (source.skip_row, column), (target.top - 1, column)]
    else:
        for column in range(source.right - 1, source.left, -1):
            if column < target.left - 2:
                yield [(source.top, column), (target.skip_row, column), (target.skip_row, target.left - 1)]


def _line_routes(earlier: Box, later: Box) -> Iterator[Route]:
    """The way to the next stage of a line, or around to the first of the next line."""
    if earlier.top == later.top:
        yield [(earlier.flow_row, earlier.right), (earlier.flow_row, later.left - 1)]
    else:
        right, left, between = earlier.right + 2, later.left - 2, later.top - 1
        start, end = (earlier.flow_row, earlier.right), (later.flow_row, later.left - 1)
        yield [start, (earlier.flow_row, right), (between, right), (between, left), (later.flow_row, left), end]
