"""One layer against another: what an edit promised to be exact, checked in float64."""

from __future__ import annotations

import copy
import math
import warnings

import torch
from torch import Tensor, nn
from torch import dtype as Dtype

from ..base.errors import RewriteError

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


class PrecisionWarning(UserWarning):
    """An exact rewrite loses in the network's own precision what the original does not."""


def warn_of_precision(pass_name: str, path: str, old: nn.Module, new: nn.Module, channels: int, own: Dtype) -> None:
    """Warn where an exact rewrite is much worse than what it replaces in float16 or bfloat16, the network's own.

    The input is random with a deviation of 50, as residual streams of trained networks have it: sums and squares of it
    are near the end of float16.
    """
    if own not in (torch.float16, torch.bfloat16):
        return
    device = next((tensor.device for tensor in (*old.parameters(), *new.parameters())), torch.device("cpu"))
    x = 50 * torch.randn((1, channels, 9, 10), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = x.to(own).to(device)
    with torch.no_grad():
        expected = copy.deepcopy(old).double().eval()(x.double())
        try:
            before, after = (_off(copy.deepcopy(module).to(own).eval()(x), expected) for module in (old, new))
        except RuntimeError:  # an operation that this device has not in this precision
            return
    if not after <= max(4 * before, 32 * torch.finfo(own).eps) and math.isfinite(before):
        name = str(own).removeprefix("torch.")
        warnings.warn(
            f"{pass_name}: {path} overflows or loses its digits in {name}, on values with a deviation of 50: off by "
            f"{after:.2g} where the original is off by {before:.2g}; leave it out (layers=...), or keep it in float32",
            PrecisionWarning,
            stacklevel=2,
        )


def _off(got: Tensor, expected: Tensor) -> float:
    error = float((got.double() - expected).norm() / expected.norm().clamp_min(1e-30))
    return math.inf if math.isnan(error) else error


def failed(pass_name: str, path: str, error: float) -> RewriteError:
    """The error to raise where two layers are too far apart."""
    if math.isnan(error):
        return RewriteError(
            f"{pass_name}: {path} itself gives NaN or infinite values, in float64 on random input: nothing can be "
            "compared with it; look at its weights",
            code="not-finite",
        )
    return RewriteError(
        f"{pass_name}: {path} was declared exact, but its output is off by {error:.2g} (relative, float64; at most "
        f"{EXACT_TOLERANCE:g}): a bug in this pass",
        code="not-exact",
    )


def _reach(module: nn.Module) -> int:
    if not isinstance(module, nn.Conv2d):
        return 1
    return max(d * (k - 1) + 1 for k, d in zip(module.kernel_size, module.dilation, strict=True))
