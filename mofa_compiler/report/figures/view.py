"""A report as drawings of its network read it: by stage, before and after, and what happened to each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import accumulate
from typing import Any, Literal

from .. import text

Outcome = Literal["unchanged", "adjusted", "exact", "approximate", "refused"]
OUTCOMES: dict[Outcome, str] = {
    "unchanged": "unchanged",
    "adjusted": "only weights fitted",
    "exact": "edited, exactly",
    "approximate": "edited, approximately",
    "refused": "refused only",
}


def view(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """The data of `report.distribution` as it is; a report in the same form, its stages with their `outcome`.

    A stage without an edit or a refusal is `unchanged`; one with refusals alone is `refused`; where every layer is what
    it was with other weights, it is `adjusted`; of another edited one, one edit that is not exact makes it
    `approximate`. `edits` and `refusals` count layers. A report from before `structure` was in it has no U-Net and no
    cheap stages, and `reason` says why.
    """
    if "stages" in data:
        return {**data, "reason": data["anatomy"]["reason"]}
    structure = data.get("structure")
    found = data["anatomy"]
    known = {stage["name"]: stage for stage in found["stages"]}
    numbers = {
        name: shape["number"]
        for shape in (structure["passes"] if structure else ())
        for name in (*shape["descending"], shape["bottom"], *shape["ascending"])
    }
    later = {stage["name"]: stage for stage in data["after"]["stages"]}
    cheap = structure["cheap"]["stages"] if structure else ()
    happened = outcomes(data["passes"])
    stages = []
    for share in data["before"]["stages"]:
        name = share["name"]
        stage = known.get(name, {"kind": None, "level": None, "units": []})
        outcome, edits, refusals = happened.get(name if name in known else None, ("unchanged", 0, 0))
        stages.append(
            {
                **share,
                "kind": stage["kind"],
                "level": stage["level"],
                "units": stage["units"],
                "pass": numbers.get(name),
                "cheap": name in cheap,
                "after": later.get(name),
                "outcome": outcome,
                "edits": edits,
                "refusals": refusals,
            }
        )
    return {
        "model": data["model"],
        "inputs": data["inputs"],
        "anatomy": found,
        "roadmap": data["roadmap"]["name"],
        "before": data["before"],
        "after": data["after"],
        "cheap": structure["cheap"] if structure else None,
        "stages": stages,
        "passes": structure["passes"] if structure else [],
        "skips": structure["skips"] if structure else [],
        "aside": structure["aside"] if structure else [],
        "reason": found["reason"] if structure else "the report does not say what its stages look like: rewrite again",
    }


def outcomes(passes: Sequence[Mapping[str, Any]]) -> dict[str | None, tuple[Outcome, int, int]]:
    """By stage (None for layers in no stage) what the passes of a report did: outcome, layers edited, layers refused.

    A layer that one pass refused and another edited counts as edited, with the parts that it was replaced by.
    """
    known = {edit["path"] for step in passes for edit in step["edits"]}
    edited: dict[str | None, set[str]] = {}
    refused: dict[str | None, set[str]] = {}
    inexact: Counter[str | None] = Counter()
    rewritten = {edit["stage"] for step in passes for edit in text.rewritten(step)}
    for step in passes:
        for edit in step["edits"]:
            edited.setdefault(edit["stage"], set()).add(_whole(edit["path"], known))
            inexact[edit["stage"]] += not text.is_exact(edit, step)
        for skip in step["skips"]:
            refused.setdefault(skip["stage"], set()).add(_whole(skip["path"], known))
    found: dict[str | None, tuple[Outcome, int, int]] = {}
    for stage in {**edited, **refused}:
        changed = edited.get(stage, set())
        left = refused.get(stage, set()) - changed
        outcome: Outcome = "approximate" if inexact[stage] else "exact"
        if stage not in rewritten:
            outcome = "adjusted" if changed else "refused"
        found[stage] = (outcome, len(changed), len(left))
    return found


def _whole(path: str, edited: Collection[str]) -> str:
    """The first edited layer that a path is in; the path itself where there is none."""
    return next((start for start in accumulate(path.split("."), "{}.{}".format) if start in edited), path)
