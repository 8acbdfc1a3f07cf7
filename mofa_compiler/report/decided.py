"""What was decided by measurement, in words and rows; terminal and Markdown render them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HEADER = ("layers", "was", "became", "time")


def rows(decisions: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """One row for every group of layers that became something else, the largest saving of time first."""
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
    if not left:
        return ""
    number = sum(len(one["paths"]) for one in left)
    tried = sum(len(one["alternatives"]) - 1 for one in left)
    layers = "1 layer stays" if number == 1 else f"{number} layers stay"
    return f"{layers} what {'it was' if number == 1 else 'they were'}: nothing chosen of {tried} alternatives measured."


def headline(decisions: Mapping[str, Any]) -> str:
    """What the whole network came to."""
    sentence: str = decisions["sentence"]
    return f"Measured: {sentence}."
