"""What was decided by measurement, in words and rows; terminal and Markdown render them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_DECIDED = "decided"
"""`autotune.search.DECIDED`, without what that imports: every layer is what was picked for it"""


def carried_out(decisions: Mapping[str, Any]) -> bool:
    """Whether the layers are what was picked for them; as a whole another network may have been chosen."""
    return bool(decisions["chosen"] == _DECIDED)


def not_kept(decisions: Mapping[str, Any]) -> str:
    """A sentence that says so where what was picked for the layers was not carried out; empty where it was."""
    if carried_out(decisions) or not rows(decisions):
        return ""
    chosen = f"as a whole, {decisions['chosen']!r} was chosen"
    return f"What was picked layer by layer was not kept: {chosen}. The picks and their times are of what was tried."


def final(decisions: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The network that was chosen, with its times; None where the original was, whose time is compared with nothing."""
    return next((one for one in decisions["networks"] if one["name"] == decisions["chosen"]), None)


def header(decisions: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """The columns of `rows`."""
    return ("layers", "was", "became" if carried_out(decisions) else "picked, not kept", "time")


def rows(decisions: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """One row for every group of layers for which something else was picked, the largest saving of time first."""
    found = []
    for one in decisions["layers"]:
        times = {alternative["name"]: alternative for alternative in one["alternatives"]}
        original, chosen = one["alternatives"][0], times[one["chosen"]]
        if chosen is original:
            continue
        more = len(one["paths"]) - 1
        name = one["paths"][0] + (f" and {more} alike" if more else "")
        saving = ((original["ms"] or 0) - (chosen["ms"] or 0)) * len(one["paths"])
        ratio = "–" if chosen["ratio"] is None else f"× {chosen['ratio']:.2f}"
        found.append((saving, (name, one["layer"], one["chosen"], ratio)))
    return [row for _, row in sorted(found, key=lambda entry: -entry[0])]


def kept(decisions: Mapping[str, Any]) -> str:
    """A sentence on the layers that stayed what they were; empty where there are none."""
    left = [one for one in decisions["layers"] if one["chosen"] == one["alternatives"][0]["name"]]
    if not left or not_kept(decisions):
        return ""
    number = sum(len(one["paths"]) for one in left)
    tried = sum(len(one["alternatives"]) - 1 for one in left)
    layers = "1 layer stays" if number == 1 else f"{number} layers stay"
    return f"{layers} what {'it was' if number == 1 else 'they were'}: nothing chosen of {tried} alternatives measured."


def headline(decisions: Mapping[str, Any]) -> str:
    """What the whole network came to."""
    sentence: str = decisions["sentence"]
    return f"Measured: {sentence}."
