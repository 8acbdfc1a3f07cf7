"""What verification says of one pass."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """How far a pass moved the network's output, on the inputs that `measured_on` names.

    `tolerance` is what rounding in the model's precision may come to, for a pass that claims to be exact.
    `relative_error` is ||after - before|| / ||before|| in the model's precision, against the network before the pass,
    and `step_psnr` the PSNR; `accumulated` and `psnr` are the same against the original. PSNR is in dB with the range
    of the original's output, over all inputs, as peak.
    """

    pass_name: str
    exact: bool
    tolerance: float
    relative_error: float
    accumulated: float
    psnr: float
    step_psnr: float
    measured_on: str

    @property
    def holds(self) -> bool:
        """Whether a pass that claims to be exact is, up to the rounding of the model's precision."""
        return not self.exact or self.relative_error <= self.tolerance
