"""What is given up after which times."""

from __future__ import annotations

import pytest

from mofa_compiler.autotune.track_record import ENOUGH, GIVEN_UP, TrackRecord
from mofa_compiler.result.decisions import Alternative


def timed(name: str, low: float, high: float) -> Alternative:
    return Alternative(name, 1.0, (low + high) / 2, (low, high))


PIECES = {"original": "as it is", "other": "another"}


@pytest.mark.parametrize(
    ("highs", "given_up"),
    [
        ([1.1] * ENOUGH, True),
        ([1.1] * (ENOUGH - 1), False),
        ([0.9] + [1.1] * ENOUGH, False),
        ([1.1] * ENOUGH + [0.9], False),
    ],
)
def test_what_never_was_faster_is_given_up(highs: list[float], given_up: bool) -> None:
    record = TrackRecord()
    for high in highs:
        record.add([timed("original", 0.9, 0.99), timed("other", 0.8, high)])
    assert record.hopeful(PIECES) == {**PIECES, **({"other": GIVEN_UP} if given_up else {})}


def test_the_original_is_never_given_up_and_what_was_not_timed_says_nothing() -> None:
    record = TrackRecord()
    for _ in range(2 * ENOUGH):
        record.add([timed("original", 1.0, 1.1), Alternative("other", problem="does not run")])
    assert record.hopeful(PIECES) == PIECES
