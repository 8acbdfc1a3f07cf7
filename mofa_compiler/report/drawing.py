"""A network drawn as a U with characters: boxes with MACs and parameters in rows by level, long skips across.

Where the boxes would be too many or too wide, every stage gets one line. Skips without room for a line are listed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from rich.cells import cell_len

from ..base import words
from .arrangement import Arrangement, Place, arrange
from .canvas import Canvas, to_ascii
from .document.terminal import shortened, wrap
from .stages import Drawn, DrawnStage
from .structure import UShape

_TALLEST = 60
_WIDEST_PASS = 100
_WIDEST_BOX = 30
_ROOM_FOR_SKIPS = 7
_BETWEEN_PASSES = 3
_GUTTER = 6


@dataclass(frozen=True)
class _Form:
    """How much of a stage is shown."""

    boxed: bool
    units: bool
    costs: bool

    @property
    def gap(self) -> int:
        """Rows between one row of stages and the next, for arrows."""
        return 1 if self.boxed else 0


_FORMS = (_Form(True, True, True), _Form(True, False, True), _Form(False, False, True), _Form(False, False, False))


@dataclass(frozen=True)
class _Block:
    """A stage on the canvas, by its outermost cells."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def skip_row(self) -> int:
        return min(self.top + 1, self.bottom)

    @property
    def flow_row(self) -> int:
        return max(self.bottom - 1, self.top)


def draw(data: Drawn, width: int, *, ascii_only: bool = False) -> list[str]:
    """A network as lines of at most `width` columns; none without a U-Net."""
    if not data.passes:
        return []
    lines: list[str] = []
    joins = data.joins
    sketches = _choose(data, width)
    for sketch in sketches:
        lines += [*([""] if lines else []), *sketch.draw(joins).render(ascii_only=ascii_only)]
        for ends in sketch.drawn:
            del joins[ends]
    lines += _aside(data, width, ascii_only)
    legend = _legend(data, joins, width, costs=sketches[0].form.costs, ascii_only=ascii_only)
    return [*lines, "", *legend]


def _choose(data: Drawn, width: int) -> list[_Sketch]:
    """The fullest form that fits, all U-Nets side by side or else one below the other."""
    for form in _FORMS:
        for groups in ([data.passes], [(shape,) for shape in data.passes]):
            sketches = [_Sketch(group, data, form, width) for group in groups]
            fits = all(sketch.fits for sketch in sketches)
            if fits and (not form.boxed or sum(sketch.height for sketch in sketches) <= _TALLEST):
                return sketches
    return sketches


class _Sketch:
    """U-Nets side by side in one form, and whether that fits."""

    def __init__(self, passes: Sequence[UShape], data: Drawn, form: _Form, width: int):
        self.passes = passes
        self.stages = stages = data.by_name
        self.form = form
        self.is_cascade = any(stage.pass_ not in (None, 1) for stage in data.stages)
        self.arrangement: Arrangement = arrange(passes, data.levels, data.skips)
        self.contents = {
            place.stage: _content(stages[place.stage], form) for places in self.arrangement.passes for place in places
        }
        self.pitch = (2 + max(len(lines) for _, lines in self.contents.values()) if form.boxed else 1) + form.gap
        self.height = self.pitch * len(self.arrangement.levels)
        available = width - _GUTTER - _BETWEEN_PASSES * (len(passes) - 1)
        self.pass_width = min(available // len(passes), _WIDEST_PASS)
        self.step, self.box_width, self.fits = self._fit()
        self.drawn: list[tuple[str, str]] = []

    def _fit(self) -> tuple[int, int, bool]:
        """Columns that each row moves towards the middle, width of the blocks, and whether they have room."""
        smallest, wanted = _widths(self.contents.values(), self.form)
        depth = self.arrangement.depth
        steps = (4, 3, 2, 1) if self.form.boxed else (2, 1, 0)
        rooms = {step: (self.pass_width - _ROOM_FOR_SKIPS - 2 * step * depth) // 2 for step in steps}
        step = next((step for step in steps if rooms[step] >= wanted), None)
        if step is None:
            step = next((step for step in steps[1:] if rooms[step] >= smallest), None)
        return (0, smallest, False) if step is None else (step, min(rooms[step], wanted), True)

    def draw(self, joins: Mapping[tuple[str, str], str]) -> Canvas:
        """The drawing; `drawn` is what of `joins` it shows."""
        canvas = Canvas()
        canvas.write(0, 0, "level")
        before = None
        for row, level in enumerate(self.arrangement.levels):
            if level != before:
                height = self.pitch - self.form.gap
                canvas.write(1 + row * self.pitch + (height - 1) // 2, 0, f"{level:>3}")
            before = level
        blocks: dict[str, _Block] = {}
        origin = _GUTTER
        for shape, places in zip(self.passes, self.arrangement.passes, strict=True):
            if self.is_cascade:
                canvas.write(0, origin, f"pass {shape.number}")
            for place in places:
                blocks[place.stage] = self._place(canvas, place, origin)
            origin += self.pass_width + _BETWEEN_PASSES
        if self.form.boxed:
            order = [place.stage for places in self.arrangement.passes for place in places]
            for earlier, later in pairwise(order):
                _first_free(canvas, _flow_routes(blocks[earlier], blocks[later]), (f"> {earlier}", f"> {later}"))
        self._draw_skips(canvas, blocks, joins)
        return canvas

    def _place(self, canvas: Canvas, place: Place, origin: int) -> _Block:
        title, lines = self.contents[place.stage]
        width = self.box_width
        top = 1 + place.row * self.pitch
        inset = place.indent * self.step
        left = {
            "left": origin + inset,
            "middle": origin + (self.pass_width - width) // 2,
            "right": origin + self.pass_width - inset - width,
        }[place.side]
        if not self.form.boxed:
            content = "  ".join([title, *lines])
            canvas.write(top, left, f"{content} ")
            return _Block(top, left - 1, top, left + cell_len(content))
        if self.form.units:
            lines = [shortened(lines[0], width - 4), *lines[1:]]
        canvas.box(top, left, width, title, lines, _tag(self.stages[place.stage]))
        return _Block(top, left, top + len(lines) + 1, left + width - 1)

    def _draw_skips(self, canvas: Canvas, blocks: Mapping[str, _Block], joins: Mapping[tuple[str, str], str]) -> None:
        shown = [ends for ends in joins if ends[0] in blocks and ends[1] in blocks]
        routes = {}
        # Straight ones first: what bends can go around them.
        for ends in sorted(shown, key=lambda ends: blocks[ends[0]].top != blocks[ends[1]].top):
            route = _first_free(canvas, _skip_routes(blocks[ends[0]], blocks[ends[1]], self.form.boxed), ends)
            if route:
                routes[ends] = route
        self.drawn += routes
        labelled: set[tuple[str, str]] = set()
        for ends, route in routes.items():
            if ends not in labelled:
                labelled |= canvas.label(route, f" {joins[ends]} ", {e for e in routes if joins[e] == joins[ends]})


def _content(stage: DrawnStage, form: _Form, whole_name: bool = False) -> tuple[str, list[str]]:
    """Title and lines of a stage."""
    lines = [stage.module] if form.units else []
    if form.costs:
        lines += costs(stage)
    if not form.boxed and form.costs and stage.cheap:
        lines.append("cheap")
    return stage.title(whole=whole_name), lines


def _widths(contents: Iterable[tuple[str, Sequence[str]]], form: _Form) -> tuple[int, int]:
    """Columns that the blocks cannot do without, and those that they had better have: modules can be shortened."""
    if not form.boxed:
        longest = max(cell_len("  ".join([title, *lines])) for title, lines in contents) + 2
        return longest, longest
    kept = [(title, *(lines[1:] if form.units else lines)) for title, lines in contents]
    smallest = max(cell_len(line) for lines in kept for line in lines) + 4
    longest = max(cell_len(line) for _, lines in contents for line in lines) + 4
    return smallest, max(smallest, min(longest, _WIDEST_BOX))


def costs(stage: DrawnStage) -> list[str]:
    """`962 M / 1.03 M`: MACs and parameters; with a roadmap, a line each, before and after."""
    after = stage.after
    macs, parameters = words.quantity(stage.macs), words.quantity(stage.parameters)
    if after is None:
        return [f"{macs} / {parameters}"]
    return [f"{macs} → {words.quantity(after.macs)}", f"{parameters} → {words.quantity(after.parameters)}"]


def _tag(stage: DrawnStage) -> str:
    return "cheap" if stage.cheap else ""


_Route = list[tuple[int, int]]


def _first_free(canvas: Canvas, routes: Iterator[_Route], ends: tuple[str, str]) -> _Route | None:
    return next((route for route in routes if canvas.connect(route, ends)), None)


def _flow_routes(earlier: _Block, later: _Block) -> Iterator[_Route]:
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


def _skip_routes(source: _Block, target: _Block, bends: bool) -> Iterator[_Route]:
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


def _aside(data: Drawn, width: int, ascii_only: bool) -> list[str]:
    """What lies on no U-Net, as boxes next to each other, with the level where there is one."""
    if not data.aside:
        return []
    form, stages = _FORMS[0], data.by_name
    contents = {name: _content(stages[name], form, whole_name=True) for name in data.aside}
    _, room = _widths(contents.values(), form)
    across = max((width - _GUTTER) // (room + 1), 1)
    canvas = Canvas()
    for index, (name, (title, lines)) in enumerate(contents.items()):
        row, column = divmod(index, across)
        level = stages[name].level
        lines = [shortened(lines[0], room - 4), *lines[1:]]
        tag = "no level" if level is None else f"level {level}"
        canvas.box(row * (len(lines) + 2), _GUTTER + column * (room + 1), room, title, lines, tag)
    canvas.write(1, 0, "aside")
    return ["", *canvas.render(ascii_only=ascii_only)]


def _legend(
    data: Drawn,
    undrawn: Mapping[tuple[str, str], str],
    width: int,
    *,
    costs: bool,
    ascii_only: bool,
) -> Iterator[str]:
    """The long skips for which no line was drawn, and how to read the drawing."""
    sentences = []
    if undrawn:
        joins = (
            f"{source} → {target} ({kinds})" if source != target else f"within {source} ({kinds})"
            for (source, target), kinds in undrawn.items()
        )
        sentences.append(f"{'further ' * (len(undrawn) < len(data.joins))}long skips: {', '.join(joins)}")
    if costs:
        meaning = f"MACs and parameters, before → after {data.roadmap}" if data.after else "MACs / parameters"
        sentences.append(f"in each block: {meaning}; level k works at 1/2^k of the input's size")
    for sentence in sentences:
        lines = wrap(sentence, width)
        yield from (to_ascii(line) for line in lines) if ascii_only else lines
