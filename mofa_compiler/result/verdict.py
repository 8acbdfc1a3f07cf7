"""What verification says of one pass, and of one thing that it looked at."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class AtSize:
    """The largest difference of two networks' outputs at one input size, relative to the largest output."""

    shape: str
    error: float


@dataclass(frozen=True)
class WholeCheck:
    """The whole network before and after a pass that claims to be exact.

    Attributes:
        sizes: the error at each input size that was checked.
        tolerance: what rounding may come to: 1e-9, or more where `note` says why.
        precision: what was computed in: `float64` unless the network cannot.
        note: why there is one size only, or another precision.
        departs: the layer, or the operation, from which on values differ; empty where they agree.
    """

    sizes: tuple[AtSize, ...]
    tolerance: float
    precision: str
    note: str = ""
    departs: str = ""

    @property
    def error(self) -> float:
        """The largest at any size."""
        return max(size.error for size in self.sizes)

    @property
    def holds(self) -> bool:
        """Whether both networks compute the same, at every size."""
        return all(size.error <= self.tolerance for size in self.sizes)


@dataclass(frozen=True)
class Verdict:
    """How far a pass moved the network's output, on the inputs that `measured_on` names.

    `tolerance` is what rounding in the model's precision may come to, for a pass that claims to be exact.
    `relative_error` is ||after - before|| / ||before|| in the model's precision, against the network before the pass,
    and `step_psnr` the PSNR; `accumulated` and `psnr` are the same against the original. PSNR is in dB with the range
    of the original's output, over all inputs, as peak. `layers` is the largest error of an exact edit alone, in
    float64, None where there is none; `whole` the check of the whole network where the pass claims to be exact.
    """

    pass_name: str
    exact: bool
    tolerance: float
    relative_error: float
    accumulated: float
    psnr: float
    step_psnr: float
    measured_on: str
    layers: float | None = None
    whole: WholeCheck | None = None
    not_finite: str = ""
    """A sentence on the original, whose own output is not finite; empty where it is"""

    @property
    def holds(self) -> bool:
        """Whether a pass that claims to be exact is, up to rounding."""
        return not self.problem

    @property
    def problem(self) -> str:
        """One sentence that names the pass, and the layer, where a promise was broken; else empty."""
        if self.not_finite:
            return self.not_finite
        if self.whole is not None and not self.whole.holds:
            worst = max(self.whole.sizes, key=lambda size: size.error)
            where = f", from {self.whole.departs} on" if self.whole.departs else ""
            return (
                f"{self.pass_name} was declared exact, but the whole network's output is off by {worst.error:.2g} "
                f"(relative, {self.whole.precision}, at {worst.shape}; at most {self.whole.tolerance:g}){where}: a bug "
                "in this pass"
            )
        if self.exact and not self.relative_error <= self.tolerance and self.whole is not None:
            return (
                f"{self.pass_name} computes the same in {self.whole.precision}, but in the network's own precision it "
                f"moved the output on the {self.measured_on} by {self.relative_error:.2g} (relative; at most "
                f"{self.tolerance:.2g}): something overflows there; leave the pass out, or use a higher precision"
            )
        if self.exact and not self.relative_error <= self.tolerance:
            return (
                f"{self.pass_name} was declared exact, but moved the output on the {self.measured_on} by "
                f"{self.relative_error:.2g} (relative; at most {self.tolerance:.2g}): a bug in this pass"
            )
        return ""


def verdict_data(verdict: Verdict) -> dict[str, Any]:
    """How far a pass moved the output, and whether it kept its promise."""
    return {
        "relative_error": verdict.relative_error,
        "step_psnr": verdict.step_psnr,
        "accumulated": verdict.accumulated,
        "psnr": verdict.psnr,
        "measured_on": verdict.measured_on,
        "holds": verdict.holds,
        "problem": verdict.problem,
        "layers": verdict.layers,
        "whole": None if verdict.whole is None else asdict(verdict.whole),
    }


@dataclass(frozen=True)
class Check:
    """What was looked at, whether it is as it should be, and what was compared, in a sentence."""

    name: str
    ok: bool
    detail: str
