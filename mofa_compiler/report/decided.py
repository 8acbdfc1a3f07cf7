"""What was decided by measurement, in words, rows and blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..base.significance import widened
from ..result.quality import Bound
from . import text
from .document import Block, Code, Details, Notice, Paragraph, Table
from .measured import Alternative, Compared, Decisions
from .model import Report
from .summary import conditions

_DECIDED = "decided"
"""`autotune.search.DECIDED`, without what that imports: every layer is what was picked for it"""


def carried_out(decisions: Decisions) -> bool:
    """Whether the layers are what was picked for them; as a whole another network may have been chosen."""
    return bool(decisions.chosen == _DECIDED)


def not_kept(decisions: Decisions) -> str:
    """A sentence that says so where what was picked for the layers was not carried out; empty where it was."""
    if carried_out(decisions) or all(one.choice is one.original for one in decisions.layers):
        return ""
    chosen = f"as a whole, {decisions.chosen!r} was chosen"
    return f"What was picked layer by layer was not kept: {chosen}. The picks and their times are of what was tried."


def header(decisions: Decisions) -> tuple[str, str, str, str, str]:
    """The columns of `rows`."""
    return ("layers", "was", "became" if carried_out(decisions) else "picked, not kept", "time", "why")


LARGE = 0.08
"""Part of the time of all layers that were measured from which on a group that stayed is told of, too"""


def rows(decisions: Decisions) -> list[tuple[str, str, str, str, str]]:
    """One row for every group of layers that something else was picked for, or that takes much time; slowest first."""
    times = [(one.original.ms or 0.0) * len(one.paths) for one in decisions.layers]
    found = []
    for ms, one in zip(times, decisions.layers, strict=True):
        stays = one.choice is one.original
        if stays and ms < LARGE * sum(times):
            continue
        more = len(one.paths) - 1
        name = one.paths[0] + (f" and {more} alike" if more else "")
        ratio = "" if stays else "–" if one.choice.ratio is None else f"× {one.choice.ratio:.2f}"
        found.append((ms, (name, one.layer, "(stays)" if stays else one.chosen, ratio, one.reason)))
    return [row for _, row in sorted(found, key=lambda entry: -entry[0])]


def kept(decisions: Decisions) -> str:
    """A sentence on the layers that stayed what they were; empty where there are none."""
    left = [one for one in decisions.layers if one.choice is one.original]
    if not left or not_kept(decisions):
        return ""
    number = sum(len(one.paths) for one in left)
    tried = sum(len(one.alternatives) - 1 for one in left)
    layers = "1 layer stays" if number == 1 else f"{number} layers stay"
    return f"{layers} what {'it was' if number == 1 else 'they were'}: nothing chosen of {tried} alternatives measured."


def tried(decisions: Decisions) -> str:
    """A sentence on whole networks that were measured and not kept, with their figures; empty where there are none."""
    others = [f"{one.name} ({one.ratio:.2f})" for one in decisions.networks if one.name != decisions.chosen]
    if not others:
        return ""
    kept = "the original was kept" if decisions.final is None else f"{decisions.chosen} was kept"
    return f"Measured as a whole, as part of the original's time: {', '.join(others)}; {kept}."


def headline(decisions: Decisions) -> str:
    """What the whole network came to."""
    return f"Measured: {decisions.sentence}."


NOISE = 0.05
"""Half-width of the original's ratio to itself from which on a machine was busy"""


def busy(decisions: Decisions) -> str:
    """A sentence where the machine did other things while it measured; else empty."""
    final = decisions.final or next(iter(decisions.networks), None)
    noise = 0.0 if final is None else (final.control[1] - final.control[0]) / 2
    if noise < NOISE:
        return ""
    return (
        f"The machine was busy: the original differed from itself by ±{100 * noise:.0f} %. Decide again when it is "
        "idle: what was measured too unsteadily is not remembered."
    )


def times(report: Report) -> dict[tuple[int, str], float]:
    """By how much every layer that was timed became slower (or, below 0, faster), in ms, by pass, from 1, and path.

    A time is that of the layer after all passes: it stands once, at the last of its edits.
    """
    found = report.decisions
    last = {edit.path: index for index, step in enumerate(report.passes, 1) for edit in text.rewritten(step)}
    changes: dict[tuple[int, str], float] = {}
    for one in found.layers if found and carried_out(found) else ():
        before, after = one.original.ms, one.choice.ms
        if before is not None and after is not None and one.choice is not one.original:
            changes |= {(last[path], path): after - before for path in one.paths if path in last}
    return changes


def signed_time(ms: float | None) -> str:
    """`+84.0 µs`, or nothing."""
    return "" if ms is None else f"{'+' if ms > 0 else '−'}{text.milliseconds(abs(ms))}"


def alternatives(found: Decisions) -> Iterator[Block]:
    """Everything that was measured: whole networks, and every group of equal layers with all that was tried."""
    yield Paragraph(f"{found.sentence[:1].upper()}{found.sentence[1:]}.")
    networks = found.networks
    where = conditions(found.conditions)
    note = f"Whole networks against the original, on {where}; each interval is widened by the noise of the measurement."
    yield _compared(((f"{one.name} (chosen)" if one.name == found.chosen else one.name, one) for one in networks), note)
    if sentence := not_kept(found):
        yield Notice(sentence)
    if found.layers:
        picked = "chosen" if carried_out(found) else "picked, but not kept,"
        yield Paragraph(f"What was {picked} for each group of equal layers, timed with every alternative:", "soft")
    limit = None if found.quality is None else found.quality.limit
    bound = None if found.quality is None or limit is None else Bound(found.quality.measure, limit)
    for one in found.layers:
        more = f" and {len(one.paths) - 3} more" if len(one.paths) > 3 else ""
        summary = (Code(one.layer), f" {', '.join(one.paths[:3])}{more}: {one.chosen} ({one.reason})")
        note = "; ".join(f"{other.name}: {other.problem}" for other in one.alternatives if other.problem)
        yield Details(summary, (_compared(((other.name, other) for other in one.alternatives), note, bound),))


def _compared(named: Iterable[tuple[str, Alternative | Compared]], note: str, bound: Bound | None = None) -> Table:
    rows = []
    for name, one in named:
        interval = one.interval and widened(one.interval, one.control if isinstance(one, Compared) else None)
        said = "{:.2f} to {:.2f}".format(*interval) if interval else ""
        ratio = "" if one.ratio is None else f"{one.ratio:.2f}"
        rows.append((name, text.milliseconds(one.ms), ratio, said, *([_worth(one, bound)] if bound else [])))
    header = ("", "time", "÷ original's", "95 % interval", *(["alone"] if bound else []))
    return Table(header, tuple(rows), "lrrrr"[: len(header)], "What was measured", note=note)


def _worth(one: Alternative | Compared, bound: Bound | None) -> str:
    """What the network is worth with an alternative alone, where that was measured."""
    worth = one.worth if isinstance(one, Alternative) else None
    return "" if worth is None or bound is None else bound.said(worth)
