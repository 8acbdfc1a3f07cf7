"""What the published PMRID keeps without data: the least that its weights have to be inherited to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from architectures import PMRID
from mofa_compiler import apply
from mofa_compiler.passes import PConvToPDWConv, SepConvToPConv, WidenPortion
from mofa_compiler.rewriting import Pass
from raw_images import RawCase, raw_cases, raw_psnr

PCONV: list[Pass] = [SepConvToPConv()]
FULL: list[Pass] = [*PCONV, WidenPortion(where="middle"), WidenPortion(where="cheap"), PConvToPDWConv(threshold=32)]


@pytest.fixture(scope="module")
def network(shared: Path) -> PMRID:
    network = PMRID(channels=4)
    weights = torch.load(shared / "data/pmrid_raw_denoiser.ckp", map_location="cpu", weights_only=True)
    network.load_state_dict(weights)
    return network.eval()


@pytest.fixture(scope="module")
def cases() -> list[RawCase]:
    return raw_cases()


def test_original(network: PMRID, cases: list[RawCase]):
    noisy, restored = raw_psnr(network, cases)
    assert (round(noisy, 1), round(restored, 1)) == (35.4, 39.7)


@pytest.mark.parametrize(
    ("roadmap", "least"),
    [(PCONV, 36.8), (FULL, 36.85), ("mofa", 37.3), ("paper-pmrid", 35.9)],
    ids=["pconv", "full without upsampling", "mofa", "paper-pmrid"],
)
def test_rewritten(network: PMRID, cases: list[RawCase], roadmap: str | list[Pass], least: float):
    assert raw_psnr(apply(network, roadmap).model, cases)[1] >= least
