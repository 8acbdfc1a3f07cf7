"""Which findings of two versions of a model are the same."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Protocol, TypeVar

_NUMBERS = re.compile(r"\d+", re.ASCII)


class Identified(Protocol):
    """What a finding is known by, within a model."""

    @property
    def code(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def signature(self) -> str: ...


Old = TypeVar("Old", bound=Identified)
New = TypeVar("New", bound=Identified)


def unmatched(old: Sequence[Old], new: Sequence[New]) -> tuple[list[Old], list[New]]:
    """What is only in `old`, and what is only in `new`, both of one model and in their order.

    First those match that are the same in rule, path and signature, which is what a fingerprint is made of. Of the
    rest, those that differ only in the numbers in their paths, as layers do that moved within a list. Each one matches
    once: one more layer of a kind is new.
    """
    for key in (_exactly, _but_for_numbers):
        old, new = _without(old, new, key), _without(new, old, key)
    return list(old), list(new)


def _exactly(one: Identified) -> Hashable:
    return one.code, one.path, one.signature


def _but_for_numbers(one: Identified) -> Hashable:
    return one.code, _NUMBERS.sub("#", one.path), one.signature


def _without(these: Sequence[Old], those: Sequence[New], key: Callable[[Identified], Hashable]) -> list[Old]:
    """`these` without what is in `those`, the first ones first where it is there less often."""
    there = Counter(map(key, those))
    left = []
    for one in these:
        if there[key(one)]:
            there[key(one)] -= 1
        else:
            left.append(one)
    return left
