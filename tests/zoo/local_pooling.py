"""Test-time local pooling (Chu et al., "Improving Image Restoration by Revisiting Global Information Aggregation").

A network trained on small crops pools over them; at test time its global pools become local ones over as many pixels,
computed with integral images.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LocalAvgPool2d(nn.Module):
    """The mean over windows of (`height`, `width`); over everything where the input is no larger than that."""

    def __init__(self) -> None:
        super().__init__()
        self.window: tuple[int, int] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.window is None:
            return F.adaptive_avg_pool2d(x, 1)
        if self.window[0] >= x.size(-2) and self.window[1] >= x.size(-1):
            return F.adaptive_avg_pool2d(x, 1)
        _, _, h, w = x.shape
        rows, columns = min(h, self.window[0]), min(w, self.window[1])
        sums = F.pad(x.cumsum(dim=-1).cumsum_(dim=-2), (1, 0, 1, 0))
        corners = sums[:, :, :-rows, :-columns] + sums[:, :, rows:, columns:]
        mean = (corners - sums[:, :, :-rows, columns:] - sums[:, :, rows:, :-columns]) / (rows * columns)
        left, top = (w - mean.shape[3]) // 2, (h - mean.shape[2]) // 2
        right, bottom = (w - mean.shape[3] + 1) // 2, (h - mean.shape[2] + 1) // 2
        return F.pad(mean, (left, right, top, bottom), mode="replicate")


def localized(model: nn.Module, train_size: tuple[int, int], factor: float = 1.5) -> nn.Module:
    """`model` with its global pools replaced; windows are `factor` times the size they pooled over in training."""
    sizes: dict[str, tuple[int, int]] = {}
    for path, module in list(model.named_modules()):
        if isinstance(module, nn.AdaptiveAvgPool2d):
            owner, _, name = path.rpartition(".")
            setattr(model.get_submodule(owner), name, LocalAvgPool2d())

    def remember(path: str, x: Tensor) -> None:
        sizes[path] = (int(x.size(-2) * factor), int(x.size(-1) * factor))

    pools = {path: module for path, module in model.named_modules() if isinstance(module, LocalAvgPool2d)}
    hooks = [
        pool.register_forward_pre_hook(lambda _, inputs, path=path: remember(path, inputs[0]))
        for path, pool in pools.items()
    ]
    with torch.no_grad():
        model(torch.zeros(1, 3, *train_size))
    for path, pool in pools.items():
        pool.window = sizes[path]
    for hook in hooks:
        hook.remove()
    return model
