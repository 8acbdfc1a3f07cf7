"""One class for many: numbers in which otherwise equal classes differ become parameters of their constructor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from . import naming
from .constructors import Slot

_LARGEST_FACTOR = 16


@dataclass(frozen=True)
class Lifted:
    """A class text with `parameters` in place of the numbers in which its instances differ; each one's arguments."""

    text: str
    parameters: list[str]
    arguments: list[list[int]]


def skeleton(text: str) -> str:
    """What is equal for two texts that differ in numbers only."""
    return Slot.PATTERN.sub(Slot.START, text)


def lift(texts: Sequence[str]) -> Lifted:
    """Merge texts of the same skeleton.

    A number that is the same in all of them stays; a multiple or a fraction of an earlier one is written as such.
    """
    found = [Slot.PATTERN.findall(text) for text in texts]
    columns = [[int(row[i][1]) for row in found] for i in range(len(found[0]))]
    bases: list[tuple[str, list[int]]] = []
    written: list[str] = []
    hints = [hint for hint, _ in found[0]]
    plain = {_column_name(hint)[1] for hint in hints}
    for hint, column in zip(hints, columns, strict=True):
        if len(set(column)) == 1:
            written.append(str(column[0]))
            continue
        expression = _derived(column, bases)
        if expression is None:
            expression = _new_name(hint, bases, plain)
            bases.append((expression, column))
        written.append(expression)
    numbers = iter(written)
    text = Slot.PATTERN.sub(lambda _: next(numbers), texts[0])
    arguments = [[column[row] for _, column in bases] for row in range(len(texts))]
    return Lifted(text, [name for name, _ in bases], arguments)


def _derived(column: list[int], bases: list[tuple[str, list[int]]]) -> str | None:
    for factor in (1, *range(2, _LARGEST_FACTOR + 1)):
        for name, base in bases:
            if column == [factor * value for value in base]:
                return name if factor == 1 else f"{factor} * {name}"
            if all(value % factor == 0 for value in base) and column == [value // factor for value in base]:
                return f"{name} // {factor}"
    return None


def _column_name(hint: str) -> tuple[str, str]:
    layer, _, argument = hint.rpartition(":")
    return layer, argument


def _new_name(hint: str, bases: list[tuple[str, list[int]]], plain: set[str]) -> str:
    layer, argument = _column_name(hint)
    taken = {name for name, _ in bases}
    if argument not in taken:
        return naming.identifier(argument, taken)
    own = f"{layer}_{argument}" if layer and not layer.isdecimal() else argument
    return naming.identifier(own, taken | plain)
