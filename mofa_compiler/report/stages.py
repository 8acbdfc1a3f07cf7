"""A network by its stages, as drawings and charts read it: before and after, and what happened to each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from itertools import accumulate
from typing import Literal, Self

from pydantic import Field, model_validator

from ..base.spelling import printable
from . import text
from .model import Amounts, Anatomy, Cost, Report, StageCost, Step, TensorShape
from .structure import CheapRule, Shape, check_structure

OTHER = "other"
"""The stage of what belongs to none, as in the totals"""

Outcome = Literal["unchanged", "adjusted", "exact", "approximate", "refused"]
OUTCOMES: dict[Outcome, str] = {
    "unchanged": "unchanged",
    "adjusted": "only weights fitted",
    "exact": "edited, exactly",
    "approximate": "edited, approximately",
    "refused": "refused only",
}


class DrawnStage(StageCost):
    """A stage, or what belongs to none."""

    kind: str | None
    level: int | None
    pass_: int | None = Field(alias="pass")
    """The U-Net of a cascade that it belongs to, from 1"""
    units: tuple[str, ...]
    """Paths of the modules that form it"""
    cheap: bool
    after: Cost | None
    """What the roadmap makes of it"""

    def title(self, *, whole: bool = False) -> str:
        """Its name, without the U-Net that it is in where its place says so."""
        return self.name if whole else self.name.removeprefix(f"pass {self.pass_} ")

    @property
    def module(self) -> str:
        """What it is mostly made of, which comes after what leads to it, and how many more: `up.conv +2`."""
        more = f" +{len(self.units) - 1}" if len(self.units) > 1 else ""
        return f"{printable(self.units[-1])}{more}" if self.units else ""

    @property
    def states(self) -> tuple[Cost, ...]:
        """What it costs, and what it comes to cost."""
        return (self,) if self.after is None else (self, self.after)


class RewrittenStage(DrawnStage):
    """A stage with what passes did to it; `edits` and `refusals` count layers."""

    outcome: Outcome
    edits: int
    refusals: int


class Drawn(Shape):
    """A network by its stages."""

    model: str
    inputs: tuple[TensorShape, ...]
    anatomy: Anatomy
    roadmap: str | None
    before: Amounts
    after: Amounts | None
    cheap: CheapRule
    stages: tuple[DrawnStage, ...]

    @model_validator(mode="after")
    def _stages_are_known(self) -> Self:
        check_structure(self, {stage.name: stage.level for stage in self.stages})
        return self

    @property
    def by_name(self) -> dict[str, DrawnStage]:
        """The stages."""
        return {stage.name: stage for stage in self.stages}

    @property
    def is_cascade(self) -> bool:
        """Whether there is more than one U-Net."""
        return any(stage.pass_ not in (None, 1) for stage in self.stages)

    @property
    def levels(self) -> dict[str, int]:
        """Of the stages that have one."""
        return {stage.name: stage.level for stage in self.stages if stage.level is not None}

    @property
    def joins(self) -> dict[tuple[str, str], str]:
        """What merges the long skips from one stage into another: `cat`, `2×add, cat`."""
        found: dict[tuple[str, str], Counter[str]] = {}
        for skip in self.skips:
            if skip.source and skip.target:
                found.setdefault((skip.source, skip.target), Counter())[skip.kind] += 1
        return {
            ends: ", ".join(kind if number == 1 else f"{number}×{kind}" for kind, number in kinds.items())
            for ends, kinds in found.items()
        }


def view(data: Report | Drawn) -> Drawn:
    """A report by its stages, each with its `outcome`; what is in that form already, as it is.

    A stage without an edit or a refusal is `unchanged`; one with refusals alone is `refused`; where every layer is what
    it was with other weights, it is `adjusted`; of another edited one, one edit that is not exact makes it
    `approximate`.
    """
    if isinstance(data, Drawn):
        return data
    structure = data.structure
    known = {stage.name: stage for stage in data.anatomy.stages}
    numbers = {name: shape.number for shape in structure.passes for name in shape.stages}
    later = {stage.name: stage for stage in data.after.stages}
    happened = outcomes(data.passes)
    stages = []
    for share in data.before.stages:
        name = share.name
        stage = known.get(name)
        outcome, edits, refusals = happened.get(name if stage else None, ("unchanged", 0, 0))
        stages.append(
            RewrittenStage(
                **dict(share),
                kind=stage.kind if stage else None,
                level=stage.level if stage else None,
                units=stage.units if stage else (),
                pass_=numbers.get(name),
                cheap=name in structure.cheap.stages,
                after=later.get(name),
                outcome=outcome,
                edits=edits,
                refusals=refusals,
            )
        )
    return Drawn(
        model=data.model,
        inputs=data.inputs,
        anatomy=data.anatomy,
        roadmap=data.roadmap.name,
        before=data.before,
        after=data.after,
        cheap=structure.cheap,
        stages=tuple(stages),
        passes=structure.passes,
        skips=structure.skips,
        aside=structure.aside,
    )


def outcomes(passes: Sequence[Step]) -> dict[str | None, tuple[Outcome, int, int]]:
    """By stage (None for layers in no stage) what the passes of a report did: outcome, layers edited, layers refused.

    A layer that one pass refused and another edited counts as edited, with the parts that it was replaced by.
    """
    known = {edit.path for step in passes for edit in step.edits}
    edited: dict[str | None, Counter[str]] = {}
    refused: dict[str | None, set[str]] = {}
    inexact: Counter[str | None] = Counter()
    rewritten = {edit.stage for step in passes for edit in text.rewritten(step)}
    for step in passes:
        places = Counter((edit.stage, edit.path) for edit in step.edits)  # of functions, several to a path
        for (stage, path), count in places.items():
            counts, whole = edited.setdefault(stage, Counter()), _whole(path, known)
            counts[whole] = max(counts[whole], count)
        inexact.update(edit.stage for edit in step.edits if not text.is_exact(edit, step))
        for skip in step.skips:
            refused.setdefault(skip.stage, set()).add(_whole(skip.path, known))
    found: dict[str | None, tuple[Outcome, int, int]] = {}
    for stage in {**edited, **refused}:
        changed = edited.get(stage, Counter())
        left = refused.get(stage, set()) - changed.keys()
        outcome: Outcome = "approximate" if inexact[stage] else "exact"
        if stage not in rewritten:
            outcome = "adjusted" if changed else "refused"
        found[stage] = (outcome, changed.total(), len(left))
    return found


def _whole(path: str, edited: Collection[str]) -> str:
    """The first edited layer that a path is in; the path itself where there is none."""
    return next((start for start in accumulate(path.split("."), "{}.{}".format) if start in edited), path)
