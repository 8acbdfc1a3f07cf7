"""The rows of ../shared/paper/targets.md: roadmaps and the exact figures that they have to reach."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import nn

from architectures import PMRID, NAFNet
from mofa_compiler import Roadmap, apply
from mofa_compiler.passes import DecoupleDownsampling, DecoupleUpsampling, PConvToPDWConv, SepConvToPConv, WidenPortion
from mofa_compiler.rewriting.pass_api import Pass


class Row(NamedTuple):
    """One row: parameters, and MACs for one 3x256x256 image where targets.md gives them."""

    model: type[nn.Module]
    name: str
    roadmap: str | Sequence[Pass]
    parameters: int
    macs: int | None
    printed: str = "–"
    """What the paper prints; it counts a transposed convolution at its output resolution"""


PCONV = (SepConvToPConv(pointwise_bias="drop"),)
UP = DecoupleUpsampling(pointwise_bias="drop")
DOWN = DecoupleDownsampling(pointwise_bias="drop")


def wide(*where: str) -> tuple[Pass, ...]:
    return (*PCONV, *(WidenPortion(where=(entry,)) for entry in where))


def final(threshold: int) -> tuple[Pass, ...]:
    return (*wide("middle", "cheap"), UP, PConvToPDWConv(threshold=threshold))


ROWS = [
    Row(PMRID, "baseline", (), 1_031_619, 962_232_320, "1.03M, 1.11–1.15G"),
    Row(
        PMRID,
        "baseline, upsampling decoupled",
        (DecoupleUpsampling(convolution="separable"),),
        1_010_307,
        None,
        "1.01M, 0.95G",
    ),
    Row(PMRID, "sepconv → PConv, 1/4", PCONV, 2_838_179, 1_930_952_704, "2.84M, 2.12G"),
    Row(PMRID, "… + middle (found)", wide("middle"), 3_858_851, 3_061_055_488, "3.86M, 3.25G"),
    Row(PMRID, "… or encoder 3, decoder 2", wide("encoder 3", "decoder 2"), 3_858_851, 3_061_055_488, "3.86M, 3.25G"),
    Row(PMRID, "… or encoder 2, decoder 3", wide("encoder 2", "decoder 3"), 2_930_147, 2_392_588_288, "2.93M, 2.58G"),
    Row(PMRID, "… or encoder 1, decoder 4", wide("encoder 1", "decoder 4"), 2_862_467, 2_350_120_960, "2.86M, 2.54G"),
    Row(PMRID, "… + cheap only (found)", wide("cheap"), 3_460_691, 2_500_722_688, "3.46M, 2.69G"),
    Row(PMRID, "… + middle and cheap", wide("middle", "cheap"), 4_439_891, 3_503_423_488, "4.44M, 3.69G"),
    Row(PMRID, "… + upsampling decoupled", (*wide("middle", "cheap"), UP), 4_422_467, 3_470_983_168, "4.42M"),
    Row(PMRID, "… or downsampling decoupled", (*wide("middle", "cheap"), DOWN), 4_606_243, None, "4.61M"),
    Row(PMRID, "final, threshold 0", final(0), 940_827, 814_764_032, "0.94M"),
    Row(PMRID, "final, threshold 16", final(16), 945_955, 893_571_072, "0.95M"),
    Row(PMRID, "final, threshold 32", final(32), 970_915, 1_089_257_472, "0.97M, 1.11G"),
    Row(PMRID, "preset paper-pmrid", "paper-pmrid", 970_915, 1_089_257_472, "0.97M, 1.11G"),
    Row(PMRID, "final, threshold 64", final(64), 1_213_955, 1_461_551_104, "1.21M"),
    Row(PMRID, "final, threshold 128", final(128), 1_250_243, 1_610_186_752, "1.25M"),
    Row(PMRID, "PDWConv at once", (*PCONV, PConvToPDWConv(threshold=0)), 954_519, 844_046_336, "0.95M, 1.03G"),
    Row(NAFNet, "baseline", (), 288_691, 1_031_039_488, "286.6K, 1.03G"),
    Row(NAFNet, "preset paper-nafnet", "paper-nafnet", 221_955, 912_337_408, "222.1K, 0.94G"),
]


@cache
def measured(index: int) -> tuple[int, int, int]:
    """Parameters by the report, parameters of the model, and MACs of a row by its index."""
    row = ROWS[index]
    result = apply(row.model(), roadmap(row), torch.rand(1, 3, 256, 256))
    return result.after.parameters, sum(p.numel() for p in result.model.parameters()), result.after.macs


def roadmap(row: Row) -> Roadmap:
    return Roadmap.load(row.roadmap) if isinstance(row.roadmap, str) else Roadmap(row.roadmap)
