"""What an alternative did on the layers before: what never was faster there is not timed on those that come later."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from ..result.decisions import Alternative
from .candidates import ORIGINAL
from .subgraphs import Piece

ENOUGH = 5
"""Groups of layers in none of which an alternative was faster beyond the noise, for it to be given up"""

GIVEN_UP = "not timed: it was not faster on any of the layers with more work"


class TrackRecord:
    """How often each alternative was faster than the original beyond the noise, by its name.

    Groups come in the order of their work: what is learned on those that take most of the time decides for the others.
    """

    def __init__(self) -> None:
        self._won: dict[str, list[bool]] = defaultdict(list)

    def hopeful(self, pieces: Mapping[str, Piece | str]) -> dict[str, Piece | str]:
        """Alternatives of a group, with words in the place of those that are given up."""
        return {name: GIVEN_UP if self._is_given_up(name) else piece for name, piece in pieces.items()}

    def add(self, found: Iterable[Alternative]) -> None:
        """What was measured of a group's alternatives."""
        for one in found:
            if one.name != ORIGINAL and one.interval is not None:
                self._won[one.name].append(one.interval[1] < 1)

    def _is_given_up(self, name: str) -> bool:
        won = self._won.get(name, [])
        return len(won) >= ENOUGH and not any(won)
