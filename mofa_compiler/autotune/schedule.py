"""How long deciding will take: seconds that its phases take where nothing else runs, from what there is to do.

Constants are of 2 to 4 cores of servers of 2020 to 2024, on one thread: a `Forecast` corrects what they come to.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..analysis.layers import signature
from ..analysis.network import Network

PHASES = ("lowerings", "alternatives", "pieces", "forms", "pricing", "fitting", "race")
"""In the order in which they come"""

COMPILING: Mapping[str, float] = {"eager": 0.01, "onnxruntime": 0.1, "openvino": 0.1, "mnn": 0.3, "xnnpack": 0.45}
"""Seconds for a piece; others, which generate code, take ten times as long as the slowest"""

RACING = 0.25
"""Seconds for a piece, of which those that are far from the fastest are soon out"""

PIECES, FORMS = 8, 0.2
"""For a kind of layer, and the time of forms as part of that of these"""

PRICED = 2
"""Alternatives for a kind of layer that are faster"""

PRICE, FIT, TUNE = 1.0, 12, 5
"""Pricing an alternative, fitting a network and a step of tuning, in runs of the original over the images of each"""

FITS, TUNED = 2.5, 1.3
"""Networks that are fitted, and tuned, for a bound"""


def of_pieces(number: int, engine: str) -> float:
    """Seconds that as many pieces take."""
    return number * (_compiling(engine) + RACING)


def of_whole_networks(number: int, engine: str) -> float:
    """Seconds that a race of as many whole networks takes."""
    return number * (40 * _compiling(engine) + 2.0)


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
    pieces = of_pieces(PIECES * layers, engine)
    seconds = {
        "lowerings": of_whole_networks(3, engine),
        "alternatives": 0.45 * layers,
        "pieces": pieces,
        "forms": FORMS * pieces,
        "race": of_whole_networks(3, engine),
    }
    return {name: seconds.get(name, 0.0) for name in PHASES}


def _compiling(engine: str) -> float:
    return COMPILING.get(engine, 10 * max(COMPILING.values()))
