"""What saves most within a budget."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mofa_compiler.autotune.candidates import Candidate
from mofa_compiler.autotune.knapsack import UNITS, Item, Price, best, knapsack


def priced(entries: Sequence[tuple[int, int]]) -> list[Price]:
    """A group, by savings and errors in units of a budget of 1."""
    found = [Price(Candidate(str(index)), saving, (units / UNITS,)) for index, (saving, units) in enumerate(entries)]
    return [Price(Candidate("original"), 0.0), *found]


@given(
    st.lists(
        st.lists(st.tuples(st.integers(1, 50), st.integers(0, 2 * UNITS)), min_size=0, max_size=3),
        min_size=1,
        max_size=5,
    )
)
def test_the_choice_is_the_best_there_is(entries: list[list[tuple[int, int]]]) -> None:
    groups = [priced(some) for some in entries]
    chosen = knapsack(groups, 1.0)
    assert sum(one.error for one in chosen) <= 1 + 1e-9
    fitting = [some for some in itertools.product(*groups) if sum(one.error for one in some) <= 1 + 1e-9]
    assert sum(one.saving for one in chosen) == max(sum(one.saving for one in some) for some in fitting)


def test_nothing_may_be_lost_of_a_budget_of_nothing() -> None:
    groups = [priced([(5, 1), (3, 0)]), priced([(7, 2)])]
    assert [one.saving for one in knapsack(groups, 0.0)] == [3, 0]


entries = st.tuples(st.integers(1, 50), st.integers(0, UNITS))


@given(st.lists(st.tuples(st.lists(entries, max_size=2), entries), min_size=1, max_size=4))
def test_what_goes_with_a_block_is_neither_paid_for_nor_saved(
    blocks: list[tuple[list[tuple[int, int]], tuple[int, int]]],
) -> None:
    """Blocks, each with layers inside: no layer of a dropped block counts."""
    items = []
    for index, (inner, whole) in enumerate(blocks):
        items += [Item(priced(inner), [f"{index}.conv"]), Item(priced([whole]), [f"{index}"], [f"{index}.conv"])]
    chosen = best(items, 1.0)
    pairs = [(one, other) for one, other in zip(chosen[::2], chosen[1::2], strict=True)]
    assert all(not (one.saving and other.saving) for one, other in pairs)
    assert sum(one.error for one in chosen) <= 1 + 1e-9
    apart = [
        [one.prices[0], *other.prices, *one.prices[1:]] for one, other in zip(items[::2], items[1::2], strict=True)
    ]
    assert sum(one.saving for one in chosen) <= sum(one.saving for one in knapsack(apart, 1.0))
    without = [item for item in items if not item.gone]
    assert sum(one.saving for one in chosen) >= sum(one.saving for one in best(without, 1.0))


def test_a_block_goes_where_its_layers_would_save_less() -> None:
    layers, block = Item(priced([(4, 300)]), ["a.conv", "b.conv"]), Item(priced([(5, 100)]), ["a"], ["a.conv"])
    assert [one.saving for one in best([layers, block], 1.0)] == [pytest.approx(2), 5]
    assert [one.saving for one in best([layers, Item(priced([(1, 4000)]), ["a"], ["a.conv"])], 1.0)] == [4, 0]


def test_of_blocks_in_one_another_one_goes() -> None:
    outer, inner = Item(priced([(9, 400)]), ["a"], ["a.b", "a.conv"]), Item(priced([(5, 100)]), ["a.b"], ["a.conv"])
    assert [one.saving for one in best([outer, inner], 1.0)] == [9, 0]
    assert [one.saving for one in best([outer, inner], 300 / UNITS)] == [0, 5]
