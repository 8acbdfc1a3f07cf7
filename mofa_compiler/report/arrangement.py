"""Where the stages of U-Nets stand in a drawing: in rows by level, down at the left and up at the right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from .structure import StageSkip, UShape

Side = Literal["left", "middle", "right"]


@dataclass(frozen=True)
class Place:
    """One stage's place: row from the top, side of its U, and how many steps it is moved towards the middle."""

    stage: str
    row: int
    side: Side
    indent: int


@dataclass(frozen=True)
class Arrangement:
    """Several U-Nets in common rows.

    Attributes:
        levels: the level of each row.
        passes: for each U-Net its places in execution order.
        depth: the largest indent of a stage that is not in the middle.
    """

    levels: tuple[int, ...]
    passes: tuple[tuple[Place, ...], ...]

    @property
    def depth(self) -> int:
        return max((place.indent for places in self.passes for place in places if place.side != "middle"), default=0)


def arrange(passes: Sequence[UShape], levels: Mapping[str, int], skips: Sequence[StageSkip]) -> Arrangement:
    """Arrange U-Nets in common rows by the levels of their stages."""
    bands = [_bands(shape, levels, skips) for shape in passes]
    rows: list[int] = []
    places: list[list[Place]] = [[] for _ in passes]
    indents = [0] * len(passes)
    for level in sorted({level for band in bands for level in band}):
        pairs = [band.get(level, []) for band in bands]
        height = max(map(len, pairs))
        for index, own in enumerate(pairs):
            for offset, (left, right) in enumerate(own, start=len(rows) + height - len(own)):
                for name, side in ((left, "left"), (right, "right")):
                    if name:
                        places[index].append(Place(name, offset, side, indents[index]))  # type: ignore[arg-type]
                indents[index] += 1
        rows += [level] * height
        turning = [
            (i, shape.bottom) for i, shape in enumerate(passes) if shape.bottom and levels[shape.bottom] == level
        ]
        for index, bottom in turning:
            places[index].append(Place(bottom, len(rows), "middle", indents[index]))
        rows += [level] * bool(turning)
    order = {name: i for shape in passes for i, name in enumerate(shape.stages)}
    return Arrangement(tuple(rows), tuple(tuple(sorted(own, key=lambda p: order[p.stage])) for own in places))


def _bands(
    shape: UShape, levels: Mapping[str, int], skips: Sequence[StageSkip]
) -> dict[int, list[tuple[str | None, str | None]]]:
    """For each level the pairs of a stage at the left and one at the right; stages that a skip joins stand together."""
    joined = {(skip.source, skip.target) for skip in skips}
    bands: dict[int, list[tuple[str | None, str | None]]] = {}
    for level in {levels[name] for name in shape.stages}:
        left = [name for name in shape.descending if levels[name] == level]
        right = [name for name in reversed(shape.ascending) if levels[name] == level]
        offsets = Counter(i - j for i, a in enumerate(left) for j, b in enumerate(right) if (a, b) in joined)
        shift = offsets.most_common(1)[0][0] if offsets else len(left) - len(right)
        first, last = min(0, shift), max(len(left), len(right) + shift)
        bands[level] = [(_at(left, row), _at(right, row - shift)) for row in range(first, last)]
    return bands


def _at(names: Sequence[str], index: int) -> str | None:
    return names[index] if 0 <= index < len(names) else None
