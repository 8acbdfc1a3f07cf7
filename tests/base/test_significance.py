"""What a measured ratio says, given the machine's noise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mofa_compiler.base.significance import noise, verdict, widened


@pytest.mark.parametrize(
    ("interval", "control", "expected"),
    [
        ((0.80, 0.85), (0.99, 1.01), "faster"),
        ((1.15, 1.20), (0.99, 1.01), "slower"),
        ((0.98, 1.01), (1.00, 1.00), "inside the noise"),
        ((0.93, 0.96), (0.94, 1.02), "inside the noise"),  # 6 % are nothing here
        ((0.93, 0.96), (0.99, 1.04), "faster"),
    ],
)
def test_a_verdict_goes_by_the_widened_interval(
    interval: tuple[float, float], control: tuple[float, float], expected: str
) -> None:
    assert verdict(interval, control) == expected
    low, high = widened(interval, control)
    assert (low <= 1 <= high) == (expected == "inside the noise")


@given(st.floats(0.5, 1.5), st.floats(0, 0.2), st.floats(0.8, 1), st.floats(1, 1.2))
def test_noise_only_widens(ratio: float, width: float, below: float, above: float) -> None:
    interval = ratio - width, ratio + width
    low, high = widened(interval, (below, above))
    assert low <= interval[0] and high >= interval[1]
    assert noise((below, above)) == max(above - 1, 1 - below)
