"""What was decided by measurement, in words, rows and blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..base.significance import widened
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
    if carried_out(decisions) or not rows(decisions):
        return ""
    chosen = f"as a whole, {decisions.chosen!r} was chosen"
    return f"What was picked layer by layer was not kept: {chosen}. The picks and their times are of what was tried."


def header(decisions: Decisions) -> tuple[str, str, str, str]:
    """The columns of `rows`."""
    return ("layers", "was", "became" if carried_out(decisions) else "picked, not kept", "time")


def rows(decisions: Decisions) -> list[tuple[str, str, str, str]]:
    """One row for every group of layers for which something else was picked, the largest saving of time first."""
    found = []
    for one in decisions.layers:
        original, chosen = one.original, one.choice
        if chosen is original:
            continue
        more = len(one.paths) - 1
        name = one.paths[0] + (f" and {more} alike" if more else "")
        saving = ((original.ms or 0) - (chosen.ms or 0)) * len(one.paths)
        ratio = "–" if chosen.ratio is None else f"× {chosen.ratio:.2f}"
        found.append((saving, (name, one.layer, one.chosen, ratio)))
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
    for one in found.layers:
        more = f" and {len(one.paths) - 3} more" if len(one.paths) > 3 else ""
        summary = (Code(one.layer), f" {', '.join(one.paths[:3])}{more}: {one.chosen} ({one.reason})")
        note = "; ".join(f"{other.name}: {other.problem}" for other in one.alternatives if other.problem)
        yield Details(summary, (_compared(((other.name, other) for other in one.alternatives), note),))


def _compared(named: Iterable[tuple[str, Alternative | Compared]], note: str) -> Table:
    rows = []
    for name, one in named:
        interval = one.interval and widened(one.interval, one.control if isinstance(one, Compared) else None)
        said = "{:.2f} to {:.2f}".format(*interval) if interval else ""
        rows.append((name, text.milliseconds(one.ms), "" if one.ratio is None else f"{one.ratio:.2f}", said))
    header = ("", "time", "÷ original's", "95 % interval")
    return Table(header, tuple(rows), "lrrr", "What was measured", note=note)
