"""Random numbers that are a function of where they are used, not of what was drawn before."""

from __future__ import annotations

import numpy as np
import torch

from ..base.errors import DataError


def generator(seed: int, *place: int) -> torch.Generator:
    """A generator for one place (an epoch and an item, say), all of them integers >= 0.

    Raises:
        DataError: the seed is negative.
    """
    if seed < 0:
        raise DataError(f"a seed must be 0 or more, not {seed}", code="bad-value")
    state = np.random.SeedSequence((seed, *place)).generate_state(1, np.uint32)
    return torch.Generator().manual_seed(int(state[0]))


def integer(count: int, source: torch.Generator) -> int:
    """One of 0 … `count` - 1."""
    return int(torch.randint(count, (), generator=source))


def uniform(low: float, high: float, source: torch.Generator) -> float:
    """A number between the two; nothing is drawn where they are equal."""
    return low if low == high else low + (high - low) * float(torch.rand((), generator=source, dtype=torch.float64))
