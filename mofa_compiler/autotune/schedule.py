"""How long deciding will take: seconds that its phases take, from what there is to do.

Constants are of 2 to 4 cores of servers of 2020 to 2024, on one thread, where nothing else runs: `Rates` takes in their
place, more and more, what the same took in this run, and a `Forecast` corrects what the others come to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..analysis.layers import signature
from ..analysis.network import Network

PHASES = ("lowerings", "alternatives", "pieces", "forms", "pricing", "fitting", "race")
"""In the order in which they come"""

COMPILING: Mapping[str, float] = {"eager": 0.01, "onnxruntime": 0.1, "openvino": 0.1, "mnn": 0.3, "xnnpack": 0.45}
"""Seconds for a piece; others, which generate code, take ten times as long as the slowest"""

RACING = 0.15
"""Seconds for a piece, of which those that are far from the fastest are soon out"""

PIECES, FORMS = 5, 0.15
"""For a kind of layer, and the time of forms as part of that of these"""

LATER = 0.5
"""Part of the pieces of smaller layers that are timed, once it is seen what never is faster"""

BLOCKS = 12
"""Pieces that exact passes are timed on"""

WHOLE = 40
"""Pieces that compile as slowly as a whole network"""

PRICED = 2
"""Alternatives for a kind of layer that are faster"""

PRICE, FIT, TUNE = 1.0, 12, 5
"""Pricing an alternative, fitting a network and a step of tuning, in runs of the original over the images of each"""

FITS, TUNED = 2.5, 1.3
"""Networks that are fitted, and tuned, for a bound"""


TRUSTED = 3
"""Pieces, or whole networks, as many of which have to be timed for that to say as much as the constants"""


@dataclass
class Rate:
    """Seconds for each of many; what was measured counts more the more of them there are."""

    expected: float
    count: int = 0
    seconds: float = 0.0

    def add(self, count: int, seconds: float) -> None:
        """So many took so long."""
        self.count, self.seconds = self.count + count, self.seconds + seconds

    @property
    def slowdown(self) -> float:
        """How many times as long it takes as was expected."""
        return self.each / self.expected

    @property
    def each(self) -> float:
        return (TRUSTED * self.expected + self.seconds) / (TRUSTED + self.count)


class Rates:
    """What pieces and whole networks take on an engine, by what they took in this run."""

    def __init__(self, engine: str):
        compiling = COMPILING.get(engine, 10 * max(COMPILING.values()))
        self.compiling, self.racing = Rate(compiling), Rate(RACING)
        self.whole, self.whole_racing = Rate(WHOLE * compiling), Rate(2.0)

    @property
    def spent_on_whole(self) -> float:
        """Seconds that whole networks took so far."""
        return self.whole.seconds + self.whole_racing.seconds

    def of_pieces(self, number: int) -> float:
        """Seconds that as many pieces take."""
        return number * (self.compiling.each + self.racing.each)

    def of_whole_networks(self, number: int) -> float:
        """Seconds that a race of as many whole networks takes."""
        compiling = self.whole.each if self.whole.count else self.whole.expected * self.compiling.slowdown
        return number * (compiling + self.whole_racing.each)


def kinds(network: Network, *, bounded: bool) -> int:
    """How many different layers there are, about, that something could be made of."""
    different = set()
    for layer in network.layers.values():
        convolution = layer.module
        if bounded or getattr(convolution, "kernel_size", (1, 1)) != (1, 1):
            different.add((signature(convolution), layer.sites[0].node.meta["val"].shape[2:]))
    return len(different)


def expected(layers: int, engine: str) -> dict[str, float]:
    """Seconds of all phases for so many kinds of layers, before more is known; nothing for what a bound brings."""
    rates = Rates(engine)
    pieces = rates.of_pieces(PIECES * layers)
    seconds = {
        "lowerings": rates.of_pieces(BLOCKS),
        "alternatives": 0.45 * layers,
        "pieces": pieces,
        "forms": FORMS * pieces,
        "race": rates.of_whole_networks(3),
    }
    return {name: seconds.get(name, 0.0) for name in PHASES}
