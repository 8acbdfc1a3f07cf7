"""One layer against another: what an edit promised to be exact, checked in float64."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from ..errors import RewriteError

EXACT_TOLERANCE = 1e-9
"""Largest difference, relative to the largest output in float64, at which two layers count as computing the same"""


def module_error(old: nn.Module, new: nn.Module, channels: int) -> float:
    """Largest difference of two modules' outputs, relative to the largest output, in float64 on random input.

    There are two inputs, (1, `channels`, reach + 1, reach + 2) and (1, `channels`, 2 reach + 2, 2 reach + 1), where
    reach is what the largest kernel spans: they have an interior and every border, whatever the example's size.
    NaN where the old module's own output is not finite, infinite where only the new one's is not.
    """
    tensors = [*old.parameters(), *new.parameters()]
    device = tensors[0].device if tensors else torch.device("cpu")
    generator = torch.Generator().manual_seed(0)
    reach = max((_reach(inner) for module in (old, new) for inner in module.modules()), default=1)
    doubled = [copy.deepcopy(module).double().eval() for module in (old, new)]
    errors = torch.zeros(2, dtype=torch.float64)
    for index, size in enumerate(((reach + 1, reach + 2), (2 * reach + 2, 2 * reach + 1))):
        x = torch.randn((1, channels, *size), generator=generator, dtype=torch.float64).to(device)
        with torch.no_grad():
            expected, got = (module(x) for module in doubled)
        if expected.shape != got.shape:
            return math.inf
        if not bool(expected.isfinite().all()):
            return math.nan
        scale = expected.abs().max().clamp_min(torch.finfo(torch.float64).tiny)
        errors[index] = ((expected - got).abs().max() / scale).nan_to_num(math.inf)
    return float(errors.max())


def failed(pass_name: str, path: str, error: float) -> RewriteError:
    """The error to raise where two layers are too far apart."""
    if math.isnan(error):
        return RewriteError(
            f"{pass_name}: {path} itself gives NaN or infinite values, in float64 on random input: nothing can be "
            "compared with it; look at its weights"
        )
    return RewriteError(
        f"{pass_name}: {path} was declared exact, but its output is off by {error:.2g} (relative, float64; at most "
        f"{EXACT_TOLERANCE:g}): a bug in this pass"
    )


def _reach(module: nn.Module) -> int:
    if not isinstance(module, nn.Conv2d):
        return 1
    return max(d * (k - 1) + 1 for k, d in zip(module.kernel_size, module.dilation, strict=True))
