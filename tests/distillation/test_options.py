"""Options: how long, how fast, and what they may be."""

from __future__ import annotations

from typing import Any

import pytest

from mofa_compiler.base.errors import RecoveryError
from mofa_compiler.distillation import Options
from tests.raising import raising


def test_steps_and_minutes() -> None:
    assert Options().most_steps == 1000 and Options(steps=7).most_steps == 7 and Options(minutes=2).most_steps is None
    assert Options(steps=10).progress(4, 1e9) == 0.4 and Options(minutes=2).progress(99, 30) == 0.25
    assert Options(minutes=1).progress(0, 61) == 1


@pytest.mark.parametrize("options", [Options(steps=100, lr=0.5), Options(minutes=1, lr=0.5)], ids=["steps", "minutes"])
def test_the_rate_rises_and_falls(options: Options) -> None:
    rates = [options.rate(i, 0.6 * i) for i in range(100)]
    peak = rates.index(max(rates))
    assert 0 < rates[0] < 0.2
    assert 2 <= peak <= 6 and max(rates) == pytest.approx(0.5, rel=0.05) and rates[-1] < 1e-3
    assert rates[: peak + 1] == sorted(rates[: peak + 1]) and rates[peak:] == sorted(rates[peak:], reverse=True)


WRONG: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "unknown": ({"learning_rate": 1}, ("unknown-option", "'learning_rate'")),
    "misspelt": ({"step": 1}, ("unknown-option", "'steps'")),
    "negative": ({"lr": -1}, ("bad-value", "lr=-1")),
    "kind": ({"mixed_precision": "fp8"}, ("bad-value", "mixed_precision='fp8'")),
    "both": ({"steps": 1, "minutes": 1}, ("ambiguous", "steps", "minutes")),
    "nothing": ({"features": 0, "output": 0, "target": 0}, ("no-data", "features", "output", "target")),
}


@pytest.mark.parametrize(("options", "said"), WRONG.values(), ids=WRONG.keys())
def test_wrong_options_are_named(options: dict[str, Any], said: tuple[str, ...]) -> None:
    with raising(RecoveryError, *said):
        Options.of(options)
