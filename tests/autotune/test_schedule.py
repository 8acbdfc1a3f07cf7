"""What is foretold follows from what was measured, once there is some of it."""

from __future__ import annotations

import pytest

from mofa_compiler.autotune import schedule
from mofa_compiler.autotune.schedule import TRUSTED, Rate, Rates


def test_a_rate_goes_from_what_was_expected_to_what_was_measured() -> None:
    rate = Rate(1.0)
    assert rate.each == 1
    rate.add(TRUSTED, 3.0 * TRUSTED)
    assert (rate.each, rate.slowdown) == (2.0, 2.0)
    rate.add(1000 * TRUSTED, 3000.0 * TRUSTED)
    assert rate.each == pytest.approx(3.0, rel=0.01)


def test_whole_networks_compile_as_much_slower_than_expected_as_pieces_do_until_one_was_compiled() -> None:
    rates = Rates("xnnpack")
    before = rates.of_whole_networks(2)
    rates.compiling.add(1000, 2000 * rates.compiling.expected)
    assert rates.of_whole_networks(2) == pytest.approx(
        2 * (2 * rates.whole.expected + rates.whole_racing.each), rel=0.01
    )
    rates.whole.add(1000, 10.0)
    assert rates.of_whole_networks(2) < before


def test_engines_that_generate_code_take_longest() -> None:
    assert sum(schedule.expected(5, "inductor").values()) > sum(schedule.expected(5, "xnnpack").values())
