"""The front of one network: what every bit of quality costs in time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..base import words
from ..base.significance import widened
from ..result.quality import Bound, Measure, chain
from . import text
from .document import Block, Code, Document, Figure, Notice, Paragraph, Table
from .priced import SAME, Front, Point
from .summary import conditions

_UNITS: Mapping[Measure, str] = {"loss": "dB lost", "psnr": "dB to original", "agreement": "same labels"}


def document(data: Front, *, every: bool = False, drawn: bool = False) -> Document:
    """A front to read: a sentence, a table, and, where `drawn`, a picture.

    Args:
        data: the front.
        every: also points that another one dominates.
        drawn: with the picture, which takes matplotlib.
    """
    shapes = data.conditions.input
    return Document(
        f"{data.model} at {shapes}: the front on {data.conditions.engine}", tuple(_blocks(data, every, drawn))
    )


def _blocks(data: Front, every: bool, drawn: bool) -> Iterator[Block]:
    yield Paragraph(headline(data), "strong")
    yield table(data, every=every)
    hidden = [one.name for one in data.points if one not in data.best and one.kind != "original"]
    if hidden and not every:
        yield Paragraph(f"Not shown, since another one is at least as fast and as good: {', '.join(hidden)}.", "soft")
    if drawn:
        from . import figures

        yield Figure(figures.inline_svg(figures.front(data), "front"), "Figure: quality over time")
    yield from map(Notice, data.notes)
    yield Paragraph(_where(data), "soft")


def headline(data: Front) -> str:
    """What the front offers, in a sentence: the first point and the fastest one."""
    bound = Bound(data.measure, 1.0)
    made = [one for one in data.best if one.kind == "front" and one.value is not None]
    if not made:
        return "No network within these bounds is faster than the original."
    ends = [made[0]] if len(made) == 1 else [made[0], made[-1]]
    offers = " to ".join(f"{one.ratio:.2f} of the time for {_said(bound, one.value or 0.0)}" for one in ends)
    return f"From {offers}." if len(ends) > 1 else f"{offers}."


def _said(bound: Bound, value: float) -> str:
    return "the same output" if bound.measure == "psnr" and value >= SAME else bound.said(value)


def table(data: Front, *, every: bool = False) -> Table:
    """A row for each network, from the best quality on."""
    original = data.points[0]
    shown = (
        sorted(data.points, key=lambda one: -one.ms)
        if every
        else [*(one for one in data.points[:1] if one not in data.best), *data.best]
    )
    with_memory = any(one.memory is not None for one in shown)
    header = ("network", _UNITS[data.measure], "time", "÷ original", "MACs", "parameters")
    rows = [
        (
            Code(one.name),
            "" if one.kind == "original" else _worth(data.measure, one.value),
            text.milliseconds(one.ms),
            "" if one.kind == "original" else _share(one, data.control),
            *(
                words.quantity(was) if one.kind == "original" else words.change(was, now)
                for was, now in ((original.macs, one.macs), (original.parameters, one.parameters))
            ),
            *((("" if one.memory is None else f"{one.memory:.0f}"),) if with_memory else ()),
        )
        for one in shown
    ]
    names = (*header, *(("MiB",) if with_memory else ()))
    return Table(names, tuple(rows), "l" + "r" * (len(names) - 1), "The front")


def _worth(measure: Measure, value: float | None) -> str:
    if value is None:
        return "not finite"
    if measure == "psnr" and value >= SAME:
        return "the same"
    if measure == "loss":
        return f"{round(value, 2) + 0.0:.2f}"  # never -0.00
    return f"{value:.1f}" if measure == "psnr" else f"{100 * value:.2f} %"


def _share(one: Point, control: tuple[float, float]) -> str:
    """Of the original's time, with its interval: `0.66 (0.63 to 0.69)`."""
    low, high = widened(one.interval, control)
    return f"{one.ratio:.2f} ({low:.2f} to {high:.2f})"


def _where(data: Front) -> str:
    known = chain({"input": data.degraded, "original": data.original})
    return (
        f"Quality: mean over {words.count(data.held_out, 'input')} that nothing was fitted to ({data.source})"
        f"{f'; PSNR: {known} dB' if known else ''}. Times: medians of one race on {conditions(data.conditions)}; each "
        "interval is widened by the noise of the measurement."
    )
