"""Reports of small networks, made once for all tests that only read them."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import torch
from torch import nn

from architectures import NAFNet
from mofa_compiler import apply

HOSTILE = "down[0]\x1b[31m\n$x_{1}$ <b>&网络|`" + "q" * 300


@cache
def _made(roadmap: str, depth: int) -> dict[str, Any]:
    torch.manual_seed(0)
    model = NAFNet(width=8, enc_blk_nums=[1, depth], dec_blk_nums=[1, 1])
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return apply(model, roadmap, torch.rand(1, 3, 32, 32)).report


def report_of(roadmap: str = "mofa", depth: int = 2) -> dict[str, Any]:
    """Of a NAFNet with so many blocks in its second encoder; a copy."""
    return copy.deepcopy(_made(roadmap, depth))


def measured(report: dict[str, Any], ms: float, engine: str = "xnnpack") -> dict[str, Any]:
    """The report with a measurement of the rewritten network against an original that takes 20 ms."""
    one = {
        **{"engine": engine, "version": "1.0", "processor": "Cortex-A76", "threads": 1, "input": "1x3x32x32"},
        **{"original_ms": 20.0, "rewritten_ms": ms, "ratio": ms / 20, "interval": [ms / 20 - 0.01, ms / 20 + 0.01]},
        "verdict": "faster" if ms < 20 else "slower",
    }
    return {**report, "measurements": [*report.get("measurements", []), one]}
