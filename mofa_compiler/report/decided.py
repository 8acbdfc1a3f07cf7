"""What was decided by measurement, in words and rows; terminal and Markdown render them."""

from __future__ import annotations

from .measured import Decisions

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
