"""Multiple-choice knapsack: one alternative a group, as much time saved as errors up to a budget in sum allow.

Kellerer, Pferschy, Pisinger: Knapsack Problems, chapter 11.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np

from .candidates import Candidate

UNITS = 5000
"""Into which a budget is divided"""


@dataclass(frozen=True)
class Price:
    """What one alternative of a group saves and costs.

    Attributes:
        candidate: the alternative.
        saving: ms, over all layers of the group.
        errors: what it adds to the error of each held-out input, alone (see `Bound.error`).
    """

    candidate: Candidate
    saving: float
    errors: tuple[float, ...] = ()

    @property
    def error(self) -> float:
        """What it adds in the mean, at least nothing."""
        return max(fmean(self.errors or (0.0,)), 0.0)


@dataclass(frozen=True)
class Item:
    """One group to choose from.

    Attributes:
        prices: of what it can become; the first is what it is, of which nothing is lost.
        paths: its layers, and how often it counts.
        gone: paths that are not there any longer if it becomes anything else; it has one other price then, at most.
    """

    prices: Sequence[Price]
    paths: Sequence[str]
    gone: Sequence[str] = ()


def best(items: Sequence[Item], budget: float) -> list[Price]:
    """One price of each item: what saves most with errors up to `budget` in sum, among what can be found quickly.

    An item that takes others with it goes or stays first, by ascent: as many of them as pay, in the order of what they
    cost for what they save, and then one more or one less, while that saves more. For the rest it is the optimum.
    """
    optional = [index for index, item in enumerate(items) if item.gone and len(item.prices) > 1]
    optional.sort(key=lambda index: items[index].prices[1].error / max(items[index].prices[1].saving, 1e-12))
    known: dict[frozenset[int], tuple[float, list[Price]]] = {}

    def tried(taken: frozenset[int]) -> float:
        if taken not in known:
            chosen = _without(items, taken, budget)
            known[taken] = sum(one.saving for one in chosen), chosen
        return known[taken][0] if known[taken][1] else -math.inf

    def turned(taken: frozenset[int], index: int) -> frozenset[int]:
        """With one more, in the place of those that it is part of or that are part of it; or with one less."""
        if index in taken:
            return taken - {index}
        return frozenset(other for other in taken if not _overlap(items[index], items[other])) | {index}

    starts = [frozenset(optional[:count]) for count in range(len(optional) + 1)]
    top = max(starts, key=tried)
    while True:
        other = max((turned(top, index) for index in optional), key=tried, default=top)
        if tried(other) <= tried(top):
            return known[top][1]
        top = other


def _overlap(one: Item, other: Item) -> bool:
    return not set(one.gone).isdisjoint(other.paths) or not set(other.gone).isdisjoint(one.paths)


def _without(items: Sequence[Item], taken: frozenset[int], budget: float) -> list[Price]:
    """What saves most where just these go with what they take away; nothing where that is too much, or overlaps."""
    gone = {path for index in taken for path in items[index].gone}
    left = budget - sum(items[index].prices[1].error for index in taken)
    if (taken and left < 0) or any(gone.intersection(items[index].paths) for index in taken):
        return []
    groups = []
    for index, item in enumerate(items):
        share = 1 - sum(path in gone for path in item.paths) / len(item.paths)
        if index in taken:
            groups.append([replace(item.prices[1], errors=())])  # which the budget is rid of
        elif item.gone or not share:
            groups.append([*item.prices[:1]])
        else:
            groups.append([_part(one, share) for one in item.prices])
    chosen = knapsack(groups, left)
    return [items[index].prices[1] if index in taken else one for index, one in enumerate(chosen)]


def _part(price: Price, share: float) -> Price:
    """The price of a share of a group's layers."""
    if share == 1:
        return price
    return replace(price, saving=share * price.saving, errors=tuple(share * error for error in price.errors))


def knapsack(groups: Sequence[Sequence[Price]], budget: float) -> list[Price]:
    """One of each group, of the first of which nothing is lost: what saves most with errors up to `budget` in sum.

    Multiple-choice knapsack by dynamic programming, errors rounded up to 1/5000 of the budget.
    """
    if budget <= 0:
        return [max((one for one in prices if one.error <= 0), key=lambda one: one.saving) for prices in groups]
    best, taken = np.zeros(UNITS + 1), []
    for prices in groups:
        rows = np.full((len(prices), UNITS + 1), -np.inf)
        for row, one in zip(rows, prices, strict=True):
            units = math.ceil(one.error / budget * UNITS - 1e-9) if one.error < 2 * budget else UNITS + 1
            if units <= UNITS:
                row[units:] = best[: UNITS + 1 - units] + one.saving
        taken.append((rows.argmax(0), prices))
        best = rows.max(0)
    left, chosen = UNITS, []
    for choice, prices in reversed(taken):
        one = prices[choice[left]]
        left -= math.ceil(one.error / budget * UNITS - 1e-9)
        chosen.append(one)
    return chosen[::-1]
