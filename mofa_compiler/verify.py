"""Checks of what was promised exact, and measures of how far off the rest is."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .program import Program

EXACT_TOLERANCE = 1e-9
"""Largest difference, relative to the largest output in float64, at which two layers count as computing the same"""


def module_error(old: nn.Module, new: nn.Module, channels: int) -> float:
    """Largest difference of two modules' outputs, relative to the largest output, in float64 on random input.

    The input is (1, `channels`, reach + 1, reach + 2), where reach is what the largest kernel spans: it has an interior
    and every border, whatever the example's size.
    """
    tensors = [*old.parameters(), *new.parameters()]
    device = tensors[0].device if tensors else torch.device("cpu")
    generator = torch.Generator().manual_seed(0)
    reach = max((_reach(inner) for module in (old, new) for inner in module.modules()), default=1)
    x = torch.randn((1, channels, reach + 1, reach + 2), generator=generator, dtype=torch.float64).to(device)
    with torch.no_grad():
        expected, got = (copy.deepcopy(module).double().eval()(x) for module in (old, new))
    if expected.shape != got.shape:
        return math.inf
    scale = expected.abs().max().clamp_min(torch.finfo(torch.float64).tiny)
    return float((expected - got).abs().max() / scale)


def _reach(module: nn.Module) -> int:
    if not isinstance(module, nn.Conv2d):
        return 1
    return max(d * (k - 1) + 1 for k, d in zip(module.kernel_size, module.dilation, strict=True))


@dataclass(frozen=True)
class Verdict:
    """How far a pass moved the network's output, on one input.

    `tolerance` is what rounding in the model's precision may come to, for a pass that claims to be exact.
    `relative_error` is ||after - before|| / ||before|| in the model's precision, against the network before the pass;
    `accumulated` is the same against the original. PSNR is in dB with the original output's range as peak.
    """

    pass_name: str
    exact: bool
    tolerance: float
    relative_error: float
    accumulated: float
    psnr: float

    @property
    def holds(self) -> bool:
        """Whether a pass that claims to be exact is, up to the rounding of the model's precision."""
        return not self.exact or self.relative_error <= self.tolerance


def exactness(program: Program) -> float:
    """Relative error that rounding may come to in a network of this precision: 200 epsilons, at most 0.1."""
    dtypes = [tensor.dtype for tensor in program.state().values() if tensor.is_floating_point()]
    return min(0.1, 200 * max((torch.finfo(dtype).eps for dtype in dtypes), default=torch.finfo(torch.float32).eps))


def relative_error(expected: Tensor, got: Tensor) -> float:
    """||got - expected|| / ||expected||, 0 where both vanish."""
    difference = float((got.double() - expected.double()).norm())
    return difference / max(float(expected.double().norm()), torch.finfo(torch.float64).tiny) if difference else 0.0


def psnr(expected: Tensor, got: Tensor) -> float:
    """Peak signal-to-noise ratio in dB, the peak being the range of `expected`; infinite where they agree."""
    error = float((got.double() - expected.double()).square().mean())
    peak = float(expected.double().max() - expected.double().min())
    if error == 0:
        return math.inf
    return 10 * math.log10(peak**2 / error) if peak else -math.inf
