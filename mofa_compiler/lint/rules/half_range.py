"""Rule 408: values that half precision does not hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar, Literal

from ..finding import Finding
from ..rule import Rule, Subject

IMAGES = 4
"""Batches of calibration inputs that are run"""


@dataclass(frozen=True)
class HalfRange(Rule):
    """A layer whose values overflow in fp16, or lose more than 2 % there, on calibration inputs.

    ## What it does
    Runs the network with its weights and all values stored in fp16 beside itself, and names the first layer that
    overflows and the first that is too far off. It runs where there are calibration inputs: `mofa lint --calibrate`, or
    `lint(model, calibration=...)`.

    ## Why is this bad?
    Phones compute in fp16, which ends at 65504: a sum of squares over 48 channels of values around 47 is beyond. What
    comes after it is infinite, or NaN.

    ## Example
    ```python
    y = x / (x * x).sum(1, keepdim=True).sqrt()
    ```

    ## Use instead
    ```python
    y = x / ((x / 64) ** 2).sum(1, keepdim=True).sqrt() / 64  # what is divided before it is summed stays small
    ```

    ## Fix safety
    There is no fix by `--fix`. `mofa verify --precision fp16` tells the same of a bundle, with ranges.
    """

    code: ClassVar[str] = "MOFA408"
    name: ClassVar[str] = "half-range"
    fixes: ClassVar[Literal["exact", "approximate"] | None] = None
    needs_calibration: ClassVar[bool] = True

    def check(self, subject: Subject) -> Iterator[Finding]:
        from ...graph.call_spec import example_call
        from ...verification.half_storage import in_half_storage

        if subject.calibration is None:
            return
        module = subject.network.program.graph_module
        calls = [example_call(module, batch) for batch in islice(subject.calibration, IMAGES)]
        found = in_half_storage(module, calls, "fp16")
        for one in dict.fromkeys(filter(None, (found.first_loss, found.first_overflow))):
            yield self.finding(subject, one.path, one.what, found.said(one))
