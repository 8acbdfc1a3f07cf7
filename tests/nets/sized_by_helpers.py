"""Functions of sizes as a network's helper module has them, which imports what it calls by name."""

from __future__ import annotations

from math import ceil, log2, sqrt

import torch.nn.functional as F
from torch import Tensor


def padded(x: Tensor, multiple: int) -> Tensor:
    h, w = x.shape[-2:]
    return F.pad(x, (0, ceil(w / multiple) * multiple - w, 0, ceil(h / multiple) * multiple - h))


def scaled(x: Tensor) -> Tensor:
    return x * sqrt(x.shape[2]) * log2(x.shape[3])
