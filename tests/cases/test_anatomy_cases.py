"""Stages of networks whose blocks look at smaller copies of their features."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

from mofa_compiler import capture
from mofa_compiler.analysis.anatomy import infer

STAGES = {
    "stem": (0, ("intro",)),
    "encoder 1": (0, ("encoders.0",)),
    "encoder 2": (1, ("downs.0", "encoders.1")),
    "bottleneck": (2, ("downs.1", "middle")),
    "decoder 1": (1, ("ups.0", "decoders.0")),
    "decoder 2": (0, ("ups.1", "decoders.1")),
    "head": (0, ("ending",)),
}


@pytest.mark.case("front-end/context_branch_levels.py")
@pytest.mark.parametrize("size", [(128, 128), (256, 256), (120, 168), (256, 384), (512, 512)], ids=str)
@pytest.mark.parametrize("branch", [False, True], ids=["plain", "branches"])
def test_branches_that_shrink_and_come_back(case: ModuleType, branch: bool, size: tuple[int, int]) -> None:
    found = infer(capture(case.Net(branch).eval(), torch.rand(1, 3, *size)))
    assert {stage.name: (stage.level, stage.units) for stage in found.stages} == STAGES
    assert found.reason == "the resolution goes down twice and up twice, spanned by 2 long skip connections (add)"
    assert len(found.passes) == 1
    assert [stage.name for stage in found.middle()] == ["encoder 2", "decoder 1"]
