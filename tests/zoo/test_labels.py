"""Stages of the networks that were labelled before the code knew them, at a large size and at a small square one."""

from __future__ import annotations

import pytest

from mofa_compiler import capture
from mofa_compiler.analysis.anatomy import Stage, infer

from .labelled import LABELLED
from .labels import SIZES, expected_labels, found_labels, wrong_labels
from .models import ZOO


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", LABELLED)
@pytest.mark.sample(6)
def test_labels(name: str, size: tuple[int, int]) -> None:
    zoo = LABELLED[name]
    found = infer(capture(zoo.build(), zoo.inputs(*size)))
    assert {stage.name: (stage.level, stage.units) for stage in found.stages} == zoo.stages
    assert [(skip.kind, skip.level) for skip in found.skips] == list(zoo.skips)
    assert found.is_unet
    assert len(found.passes) == 1


def test_what_is_counted_as_wrong() -> None:
    zoo = ZOO["unet"]
    found = infer(capture(zoo.build(), zoo.inputs(64, 64)))
    assert list(wrong_labels(zoo, found)) == []
    assert len(expected_labels(zoo)) == 10 + 10 + 4
    stages = tuple(
        Stage("encoder 9", s.kind, 7, s.units) if s.name == "encoder 1" else s for s in found.stages if s.name != "head"
    )
    damaged = type(found)(**{**vars(found), "stages": stages, "skips": found.skips[:3] + found.skips[:2]})
    assert len(found_labels(damaged)) == len(found_labels(found)) - 1
    assert [line.split(":")[0] for line in wrong_labels(zoo, damaged)] == [
        "unit downs.0",
        "unit outc",
        "level encoder 1",
        "level head",
        "skip 3",
        "skip 4",
    ]
