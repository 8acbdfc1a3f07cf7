"""Shapes on meta tensors are those of the real values."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.rewrites import Net, network


@pytest.mark.parametrize(
    "options",
    [
        {"scale_factor": 2, "mode": "bilinear"},
        {"scale_factor": (1.5, 2.3), "mode": "bicubic", "align_corners": True},
        {"size": (7, 9), "mode": "bilinear", "align_corners": False},
        {"scale_factor": 1.3, "mode": "bilinear", "recompute_scale_factor": True},
        {"scale_factor": 0.4, "mode": "nearest"},
        {"scale_factor": 3, "mode": "area"},
    ],
    ids=str,
)
@pytest.mark.parametrize("form", ["module", "function", "antialiased"])
def test_interpolations(options: dict[str, Any], form: str):
    can_be_antialiased = options["mode"] in ("bilinear", "bicubic")
    options = {**options, "antialias": True} if form == "antialiased" and can_be_antialiased else options
    up = nn.Upsample(**options) if form == "module" else None
    model = Net(lambda net, x: net.up(net.first(x)) if up else F.interpolate(net.first(x), **options))
    model.first = nn.Conv2d(8, 8, 1)
    if up is not None:
        model.up = up
    found = network(model, 1, 8, 10, 13)
    result = next(node for node in found.program.graph.nodes if node.op == "output").args[0]
    assert result.meta["val"].shape == model(torch.rand(1, 8, 10, 13)).shape
    assert result.meta["val"].dtype == torch.float32
