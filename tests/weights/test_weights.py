"""What the published PMRID keeps without data: the least that its weights have to be inherited to."""

from __future__ import annotations

import pytest

from architectures import PMRID
from mofa_compiler import apply
from mofa_compiler.passes import PConvToPDWConv, SepConvToPConv, WidenPortion
from mofa_compiler.rewriting.pass_api import Pass
from raw_images import RawCase, raw_cases, raw_psnr

PCONV: list[Pass] = [SepConvToPConv()]
FULL: list[Pass] = [*PCONV, WidenPortion(where="middle"), WidenPortion(where="cheap"), PConvToPDWConv(threshold=32)]


@pytest.fixture(scope="module")
def cases() -> list[RawCase]:
    return raw_cases()


def test_original(pmrid: PMRID, cases: list[RawCase]):
    noisy, restored = raw_psnr(pmrid, cases)
    assert (round(noisy, 1), round(restored, 1)) == (35.4, 39.7)


@pytest.mark.sample("pconv", "mofa")
@pytest.mark.parametrize(
    ("roadmap", "least"),
    [(PCONV, 36.8), (FULL, 36.85), ("mofa", 37.3), ("paper-pmrid", 35.9)],
    ids=["pconv", "full without upsampling", "mofa", "paper-pmrid"],
)
def test_rewritten(pmrid: PMRID, cases: list[RawCase], roadmap: str | list[Pass], least: float):
    assert raw_psnr(apply(pmrid, roadmap).model, cases)[1] >= least
