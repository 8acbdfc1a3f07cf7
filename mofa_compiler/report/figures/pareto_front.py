"""Several networks as points, one number against another, with the pareto front."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from ...base.errors import ReportError
from ..dominance import not_dominated
from ..model import Report
from ..summary import Summary, condition_text, summary
from .style import COLOURS, clipped, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AXES = ("parameters", "macs", "ms", "psnr", "error")
"""What a network can be drawn by"""

_MARKERS = ("o", "^", "D", "v", "P", "X", "<", ">")
_SIZE = (5.6, 3.9)
_CHARACTER, _LINE = 0.058, 0.14
"""Width and height that a label's text takes, in inches"""


@dataclass(frozen=True)
class _Point:
    x: float
    y: float
    label: str
    family: int
    """Number of the original that it is or comes from"""
    model: str
    is_original: bool


def pareto(reports: Sequence[Report], names: Sequence[str] = (), x: str | None = None, y: str | None = None) -> Figure:
    """Networks and their originals as points, one shape of marker for an original (hollow) and what was made of it.

    A network is on the front where no other is better by one axis and at least as good by the other. Errors, and PSNR
    against an original's output, compare only networks of the same original: then each original has a front of its own.

    Args:
        reports: of one network or of several.
        names: a label for each; without them, the model and the roadmap.
        x: one of `AXES`: `parameters`, `macs`, `ms` (of one run, under the first conditions that all have in common:
            each one's ratio to its original, times the median of that original's times), `psnr` (in dB, against the
            ground truth where that is known of all, else against the original's output) or `error` (of the output,
            relative to the original's); `ms` where it is known of all, else `macs`.
        y: the same; by default `psnr` where the ground truth is known for all, else `error`, else `parameters`.

    Raises:
        ReportError: there is no report, an axis is unknown, or the number is not known of every report.
    """
    if not reports:
        raise ReportError("a pareto plot needs at least one report")
    labels = [*names] or [f"{one.model}, {one.roadmap.name}" for one in reports]
    networks = [summary(report, label) for report, label in zip(reports, labels, strict=True)]
    known = {axis: _Known(axis, networks) for axis in AXES}
    for axis in (x, y):
        if axis is not None and axis not in known:
            raise ReportError(f"there is no axis {axis!r}: choose of {', '.join(AXES)}")
    x = x or next(axis for axis in ("ms", "macs", "parameters") if not known[axis].missing and axis != y)
    y = y or next(axis for axis in ("psnr", "error", "parameters", "macs") if known[axis].is_of_originals and axis != x)
    if x == y:
        raise ReportError(f"both axes are {x}: choose two of {', '.join(AXES)}")
    across, up = known[x], known[y]
    if across.missing or up.missing:
        raise ReportError(across.missing or up.missing)
    points = list(_points(networks, across, up))
    with style():
        return _draw(points, across, up)


@dataclass
class _Axis:
    """One number of several networks, and words for it."""

    name: str
    label: str
    note: str = ""
    """How the numbers were made, where they are not those of the reports"""
    higher_is_better: bool = False
    is_relative: bool = False
    """Whether it says something of a network only in relation to the original that it was made from"""

    def formatter(self) -> Any:
        """How ticks are written: with as many digits as tell them apart."""
        from matplotlib.ticker import EngFormatter, PercentFormatter, ScalarFormatter

        if self.name in ("parameters", "macs"):
            return EngFormatter(sep=" ")
        as_percent = PercentFormatter(1, symbol=" %")
        return as_percent if self.name in ("error", "agreement") else ScalarFormatter(useOffset=False)


def of_points(
    points: Sequence[tuple[str, float, float, bool]], model: str, across: str, up: str, *, up_name: str, up_higher: bool
) -> Figure:
    """Networks as points, of which all is known: name, x (lower is better), y, and whether it is the original."""
    with style():
        drawn = [_Point(x, y, name, 0, model, is_original) for name, x, y, is_original in points]
        return _draw(drawn, _Axis("ms", across), _Axis(up_name, up, higher_is_better=up_higher))


class _Known(_Axis):
    """The same with its values, and why it is not known, if so."""

    def __init__(self, name: str, networks: Sequence[Summary]):
        super().__init__(name, {"error": "relative output error"}.get(name, name))
        self.missing = ""
        self.higher_is_better = name == "psnr"
        self.is_relative = name == "error"
        self.values = [(getattr(one.original, name, None), getattr(one.rewritten, name, None)) for one in networks]
        if name == "macs":
            shapes = {one.inputs for one in networks}
            self.label = f"MACs at {shapes.pop()}" if len(shapes) == 1 else "MACs, each at its own input size"
        elif name == "ms":
            self._time(networks)
        elif name == "psnr":
            self.label = "PSNR, dB"
            images = {(one.psnr_on, one.original.psnr) for one in networks}
            if len(images) > 1 or any(value is None for pair in self.values for value in pair):
                self.label = "PSNR to the original's output, dB"
                self.is_relative = True
                self.values = [(None, one.psnr_to_original) for one in networks]
        if self.is_relative and len({one.quality_on for one in networks}) > 1:
            self.label += ", on different inputs"
        lacking = [one.name for one, (_, value) in zip(networks, self.values, strict=True) if value is None]
        if lacking and not self.missing:
            why = ", and equal outputs have none: error is known then" if name == "psnr" else ""
            self.missing = f"{name} is not known of {', '.join(lacking)}{why}"

    @property
    def is_of_originals(self) -> bool:
        """Whether it is known of the original networks, too."""
        return not self.missing and all(value is not None for value, _ in self.values)

    def _time(self, networks: Sequence[Summary]) -> None:
        measured = [{one.condition: one for one in network.latency} for network in networks]
        shared = [where for where in measured[0] if all(where in one for one in measured)]
        if not shared:
            lacking = [network.name for network in networks if not network.latency]
            self.missing = (
                f"ms is not known of {', '.join(lacking)}: they were not measured"
                if lacking
                else "ms is not known of all under the same conditions (engine, version, threads, input, processor)"
            )
            self.values = [(None, None) for _ in networks]
            return
        self.label = f"ms, {condition_text(shared[0])}"
        # One run may have met a slower machine than the next: only ratios to the original in the same run compare.
        times = [one[shared[0]] for one in measured]
        families = [_family(network) for network in networks]
        originals = {
            family: median(one.original_ms for one, own in zip(times, families, strict=True) if own == family)
            for family in set(families)
        }
        self.values = [
            (originals[family], originals[family] * one.ratio) for one, family in zip(times, families, strict=True)
        ]
        if any(one.original_ms != own for one, (own, _) in zip(times, self.values, strict=True)):
            self.note = "each network: its ratio × the median time of its original"


def _points(networks: Sequence[Summary], across: _Known, up: _Known) -> Iterator[_Point]:
    """The originals, each once and where both numbers are known of it, and the rewritten networks."""
    families: dict[tuple[Any, ...], int] = {}
    for network, xs, ys in zip(networks, across.values, up.values, strict=True):
        known = _family(network)
        if known not in families:
            families[known] = len(families)
            if xs[0] is not None and ys[0] is not None:
                yield _Point(xs[0], ys[0], network.model, families[known], network.model, True)
        assert xs[1] is not None and ys[1] is not None  # neither axis is `missing`
        yield _Point(xs[1], ys[1], network.name, families[known], network.model, False)


def _family(network: Summary) -> tuple[Any, ...]:
    """What tells one original from another."""
    original = network.original
    return network.model, network.inputs, original.parameters, original.macs


def _fronts(points: Sequence[_Point], across: _Axis, up: _Axis) -> Iterator[list[tuple[float, float]]]:
    """The points of one front or, where a number is relative to an original, of one for each original."""
    for family in sorted({point.family for point in points}) if across.is_relative or up.is_relative else (None,):
        group = [(point.x, point.y) for point in points if family in (None, point.family)]
        yield [group[index] for index in not_dominated(group, across.higher_is_better, up.higher_is_better)]


def _draw(points: Sequence[_Point], across: _Axis, up: _Axis) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE)
    models = {point.family: clipped(point.model, 20) for point in points}
    figure.set_label(f"{', '.join(dict.fromkeys(models.values()))}: {across.name} against {up.name}")
    left, bottom = (0.19 if up.note else 0.15), (0.18 if across.note else 0.14)
    axes: Any = figure.add_axes((left, bottom, 0.96 - left, 0.91 - bottom))
    axes.set_xlabel("\n".join(filter(None, (clipped(across.label, 80), across.note))))
    axes.set_ylabel("\n".join(filter(None, (clipped(up.label, 60), up.note))))
    axes.xaxis.set_major_formatter(across.formatter())
    axes.yaxis.set_major_formatter(up.formatter())
    axes.grid(color=COLOURS["band"], linewidth=0.8)
    axes.set_axisbelow(True)
    axes.margins(0.18, 0.16)
    fronts = list(_fronts(points, across, up))
    for line in fronts:
        axes.plot(*zip(*line, strict=True), color=COLOURS["saved"], linewidth=1.2, linestyle="--", zorder=2)
    for point in points:
        axes.plot(point.x, point.y, **_marker(point.family, hollow=point.is_original), zorder=3)
    axes.locator_params(axis="x", nbins=5)
    axes.autoscale_view()  # now, since the labels are placed by where the points come to lie
    _label(axes, points)
    drawn = ""
    if any(len(line) > 1 for line in fronts):
        drawn = "pareto front of each original" if len(fronts) > 1 else "pareto front"
    _explain(axes, models, drawn, any(point.is_original for point in points))
    return figure


def _label(axes: Any, points: Sequence[_Point]) -> None:
    """A label beside each point, where it covers no other, if there is such a place."""
    places = [axes.transData.transform((point.x, point.y)) / axes.figure.dpi for point in points]
    taken = [(x - 0.06, y - 0.06, x + 0.06, y + 0.06) for x, y in places]
    right = axes.transAxes.transform((1, 1))[0] / axes.figure.dpi
    left = axes.transAxes.transform((0, 0))[0] / axes.figure.dpi
    for point, (x, y) in zip(points, places, strict=True):
        words = clipped(point.label, 32)
        width = _CHARACTER * len(words)
        sides = [
            (0.1, -_LINE / 2, "left"),
            (-0.1 - width, -_LINE / 2, "right"),
            *((-width / 2, offset, "center") for offset in (0.09, -0.09 - _LINE, 0.23, -0.23 - _LINE, 0.37)),
        ]
        boxes = [(x + dx, y + dy, x + dx + width, y + dy + _LINE) for dx, dy, _ in sides]
        costs = [sum(_overlaps(box, other) for other in taken) + (box[0] < left or box[2] > right) for box in boxes]
        chosen = costs.index(min(costs))
        taken.append(boxes[chosen])
        dx, dy, align = sides[chosen]
        anchor = {"left": dx, "right": dx + width, "center": dx + width / 2}[align]
        axes.annotate(
            words,
            (point.x, point.y),
            (72 * anchor, 72 * (dy + _LINE / 2)),
            textcoords="offset points",
            ha=align,
            va="center",
            fontsize=7.5,
            zorder=4,
        )


def _overlaps(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _marker(family: int, *, hollow: bool) -> dict[str, Any]:
    return {
        "linestyle": "none",
        "marker": _MARKERS[family % len(_MARKERS)],
        "markersize": 7,
        "markeredgecolor": COLOURS["after"],
        "markerfacecolor": COLOURS["paper"] if hollow else COLOURS["after"],
        "markeredgewidth": 1.2,
    }


def _explain(axes: Any, models: Mapping[int, str], front_label: str, has_originals: bool) -> None:
    """What the shapes stand for: a model's name for each, where there are several."""
    from matplotlib.lines import Line2D

    shapes = models if 1 < len(models) <= len(_MARKERS) else {0: "rewritten"}
    handles = [Line2D([], [], **_marker(family, hollow=False), label=name) for family, name in shapes.items()]
    if has_originals:
        label = "hollow: original" if len(shapes) > 1 else "original"
        handles.append(Line2D([], [], **_marker(0, hollow=True), label=label))
    if front_label:
        handles.append(Line2D([], [], color=COLOURS["saved"], linestyle="--", label=front_label))
    columns = 4 if len(handles) > 4 else len(handles)
    above = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.1, "columnspacing": 1.2}
    axes.legend(handles=handles, ncols=columns, handletextpad=0.3, **above)
