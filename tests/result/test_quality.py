"""Bounds on quality, and errors that add up."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mofa_compiler.base.errors import CalibrationError
from mofa_compiler.result.quality import Bound, Quality
from tests.raising import raising


@given(st.sampled_from(["loss", "psnr", "agreement"]), st.floats(0.01, 1))
def test_errors_and_values_are_two_ways_to_say_the_same(measure: str, value: float) -> None:
    bound = Bound(measure, 0.5)
    assert bound.value([bound.error(value)]) == pytest.approx(value)
    assert bound.holds(value) == (bound.error(value) <= bound.allowed) or value == pytest.approx(0.5)


def test_errors_add_up() -> None:
    """Independent errors of squared size 1 and 2 on an original's of 3: 10 log10(6 / 3) dB."""
    loss = Bound("loss", 1.0)
    alone = [loss.error(10 * math.log10((3 + error) / 3)) for error in (1, 2)]
    assert loss.value([sum(alone)]) == pytest.approx(10 * math.log10(2))


def test_what_is_not_finite_holds_no_bound() -> None:
    for bound in (Bound("loss", 1e9), Bound("psnr", 1e-9), Bound("agreement", 0.0)):
        assert not bound.holds(bound.value([0.1, math.inf]))


@pytest.mark.parametrize(
    ("measure", "limit"),
    [("loss", -1.0), ("loss", math.nan), ("psnr", 0.0), ("psnr", math.inf), ("agreement", 1.5), ("ssim", 0.9)],
)
def test_bad_bounds(measure: str, limit: float) -> None:
    with raising(CalibrationError, "bad-value"):
        Bound(measure, limit)


def test_a_sentence() -> None:
    quality = Quality("loss", 0.15, 0.1, 8, "photos", degraded=20.2, original=32.0, rewritten=31.9)
    assert quality.holds
    for part in ("0.10 dB lost", "8 held-out inputs", "20.20", "32.00", "31.90"):
        assert part in quality.sentence
    assert "degraded" not in Quality("agreement", 0.99, 0.995, 1, "given").sentence
