"""Pareto fronts: what no other one beats by two numbers."""

from __future__ import annotations

from collections.abc import Sequence


def not_dominated(points: Sequence[tuple[float, float]], x_higher: bool = False, y_higher: bool = False) -> list[int]:
    """Indices of the points that no other dominates, from the best by x on."""
    signed = [(-a if x_higher else a, -b if y_higher else b) for a, b in points]
    best = float("inf")
    found: list[int] = []
    for index in sorted(range(len(points)), key=lambda index: signed[index]):
        if signed[index][1] < best or (found and signed[index] == signed[found[-1]]):
            found.append(index)
            best = signed[index][1]
    return found
