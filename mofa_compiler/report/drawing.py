"""A network drawn as a U with characters: boxes with MACs and parameters in rows by level, long skips across.

Where the boxes would be too many or too wide, every stage gets one line. Skips without room for a line are listed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..base import words
from .canvas import to_ascii
from .document.terminal import wrap
from .layout import Form, Layout, Lines, UShapes
from .stages import Drawn, DrawnStage

_TALLEST = 60
_FORMS = (Form(True, True, True), Form(True, False, True), Form(False, False, True), Form(False, False, False))


def draw(data: Drawn, width: int, *, ascii_only: bool = False) -> list[str]:
    """A network as lines of at most `width` columns; none without a U-Net."""
    if not data.passes:
        return []
    joins = data.joins
    shapes = _choose(data, width)
    for layout in shapes:
        layout.draw(joins, numbered=data.is_cascade)
        joins = {ends: kinds for ends, kinds in joins.items() if ends not in layout.skips}
    drawn: list[Layout] = [*shapes]
    if data.aside:
        stages = data.by_name
        drawn.append(Lines([stages[name] for name in data.aside], _FORMS[0], _content, width))
        drawn[-1].canvas.write(1, 0, "aside")
    lines = [line for layout in drawn for line in ("", *layout.canvas.render(ascii_only=ascii_only))][1:]
    legend = _legend(data, joins, width, costs=shapes[0].form.costs, ascii_only=ascii_only)
    return [*lines, "", *legend]


def _choose(data: Drawn, width: int) -> list[UShapes]:
    """The fullest form that fits, all U-Nets side by side or else one below the other."""
    for form in _FORMS:
        for groups in ([data.passes], [(shape,) for shape in data.passes]):
            found = [UShapes(group, data, form, _content, width) for group in groups]
            fits = all(layout.fits for layout in found)
            if fits and (not form.boxed or sum(layout.height for layout in found) <= _TALLEST):
                return found
    return found


def _content(stage: DrawnStage, form: Form, whole_name: bool) -> tuple[str, list[str]]:
    """Title and lines of a stage."""
    lines = [stage.module] if form.units else []
    if form.costs:
        lines += costs(stage)
    if not form.boxed and form.costs and stage.cheap:
        lines.append("cheap")
    return stage.title(whole=whole_name), lines


def costs(stage: DrawnStage) -> list[str]:
    """`962 M / 1.03 M`: MACs and parameters; with a roadmap, a line each, before and after."""
    after = stage.after
    macs, parameters = words.quantity(stage.macs), words.quantity(stage.parameters)
    if after is None:
        return [f"{macs} / {parameters}"]
    return [f"{macs} → {words.quantity(after.macs)}", f"{parameters} → {words.quantity(after.parameters)}"]


def further_skips(data: Drawn, undrawn: Mapping[tuple[str, str], str]) -> str:
    """The long skips for which no line was drawn."""
    joins = (
        f"{source} → {target} ({kinds})" if source != target else f"within {source} ({kinds})"
        for (source, target), kinds in undrawn.items()
    )
    return f"{'further ' * (len(undrawn) < len(data.joins))}long skips: {', '.join(joins)}"


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
        sentences.append(further_skips(data, undrawn))
    if costs:
        meaning = f"MACs and parameters, before → after {data.roadmap}" if data.after else "MACs / parameters"
        sentences.append(f"in each block: {meaning}; level k works at 1/2^k of the input's size")
    for sentence in sentences:
        lines = wrap(sentence, width)
        yield from (to_ascii(line) for line in lines) if ascii_only else lines
