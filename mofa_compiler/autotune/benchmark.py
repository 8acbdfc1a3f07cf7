"""Pieces and whole networks timed on the target's engine, and remembered on disk."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..analysis.fingerprint import architecture_hash
from ..analysis.network import Network
from ..base.errors import EngineError
from ..base.torch_state import own_randomness
from ..base.words import quantity
from ..frontend import capture
from ..result.decisions import Alternative, Comparison
from ..rewriting.target import Conditions, Target
from ..runtime import Cache, Compiled, Engine, Race, race
from ..runtime import engine as find_engine
from ..runtime.racing import shortest
from .schedule import Rates
from .subgraphs import Piece

T = TypeVar("T")
Tell = Callable[[str, int, int], None]

PIECE_SECONDS, PIECE_TOLERANCE = 0.15, 0.02
"""Time for each alternative of a piece that may be the best, and the precision at which that is enough"""

ROUNDS = (4, 400)
"""Rounds of each, at least and at most: after the fewest, those go that take far longer than the fastest"""

NEAR = 1.3
"""How far: forms of an alternative, split and cat, can make up for so much"""

CLEAR = 9
"""Rounds after which those go, too, that take longer than the fastest beyond the noise"""

NOISY = 0.2
"""A ratio's interval as wide as this says too little to be remembered"""

PATIENCE = 3
"""Where the original against itself is too noisy, it is all measured again, so many times as long"""

WHOLE_SECONDS, WHOLE_TOLERANCE = 3.0, 0.01
"""Time for each whole network, and the precision at which that is enough"""


class Trials:
    """Measures on one engine; what was measured before, on the same kind of machine, is read from disk."""

    def __init__(self, target: Target, shape: str, cache: Cache | None = None):
        self.target, self.engine = target, find_engine(target.engine, target.precision)
        self.cache = Cache() if cache is None else cache
        self._ready: dict[str, Callable[[], Compiled]] = {}
        self._kept: dict[str, Compiled] = {}
        self.rates = Rates(target.engine)
        self.conditions = Conditions(
            self.engine.name,
            self.engine.version(),
            torch.__version__,
            self.engine.processor(),
            target.threads,
            shape,
            target.precision,
        )

    def promising(self, groups: Sequence[Mapping[str, Piece | str]], tell: Tell) -> list[dict[str, Piece | str]]:
        """The groups without what cannot win: words where the products alone take longer than all of the original.

        That is judged before it is built, by the speed of a large matrix product on the same engine, or of the original
        where that is as fast.
        """
        pieces = [piece for found in groups for piece in islice(found.values(), 1) if isinstance(piece, Piece)]
        large = _large_product()
        times = self._times([large, *pieces], tell)
        speed = large.work / times[large.fingerprint] if large.fingerprint in times else math.inf
        left = []
        for found in groups:
            name, first = next(iter(found.items()))
            ms = times.get(first.fingerprint, math.inf) if isinstance(first, Piece) else math.inf
            reached = max(speed, first.work / ms) if isinstance(first, Piece) else speed
            others = {other: piece for other, piece in found.items() if other != name}
            left.append({name: first, **{one: _unless_slower(piece, reached, ms) for one, piece in others.items()}})
        return left

    def _times(self, pieces: Sequence[Piece], tell: Tell) -> dict[str, float]:
        """The shortest run of each in ms, by its fingerprint; an engine may not take all of them."""
        found: dict[str, float] = {}
        by_print = {piece.fingerprint: piece for piece in pieces}
        for one in by_print:
            if (known := self.remembered({"alone": one}, float)) is not None:
                found[one] = known
        new = {one: piece for one, piece in by_print.items() if one not in found}
        self._compile_at_once(new, tell)
        for one, piece in new.items():
            try:
                found[one] = shortest(self._piece(piece), self.engine, self.target.threads)
            except EngineError:
                continue
            self.remember({"alone": one}, found[one])
        return found

    def prepare(self, groups: Sequence[Mapping[str, Piece | str]], tell: Tell) -> None:
        """Compile, many at once, what `pieces` will be asked for and does not remember."""
        unknown: dict[str, Piece] = {}
        for found in groups:
            if self._known(found) is None:
                unknown |= {piece.fingerprint: piece for piece in found.values() if isinstance(piece, Piece)}
        self._compile_at_once(unknown, tell)

    def _compile_at_once(self, pieces: Mapping[str, Piece], tell: Tell) -> None:
        prints, step = [one for one in pieces if one not in self._ready], self.engine.at_once
        for start in range(0, len(prints), step):
            tell("compiling pieces", start, len(prints))
            some = prints[start : start + step]
            networks = [(pieces[one].module, pieces[one].inputs) for one in some]
            since = time.monotonic()
            self._ready |= zip(some, self.engine.prepare(networks, self.target.threads), strict=True)
            self.rates.compiling.add(len(some), time.monotonic() - since)

    def pieces(self, found: Mapping[str, Piece | str]) -> list[Alternative]:
        """Time alternatives of one piece against the first; text in place of one says why there is none.

        They are timed for as long as each may still be the fastest. Where the first against itself shows that others
        were at work, those that may be are timed once more, longer.
        """
        if (known := self._known(found)) is not None:
            return known
        compiled: dict[str, Compiled] = {}
        problems = {name: piece for name, piece in found.items() if isinstance(piece, str)}
        for name, piece in found.items():
            if isinstance(piece, Piece):
                try:
                    compiled[name] = self._piece(piece)
                except EngineError as error:
                    problems[name] = str(error)
        first = next(iter(found))
        alternatives = {name: Alternative(name, problem=problem) for name, problem in problems.items()}
        left, since = compiled if first in compiled else {}, time.monotonic()
        for patience in (1, PATIENCE) if left else ():
            run = race(
                list(left.values()),
                self.engine,
                self.target.threads,
                tolerance=PIECE_TOLERANCE,
                seconds=patience * PIECE_SECONDS * len(left),
                rounds=ROUNDS,
                out=_beaten,
            )
            alternatives |= dict(zip(left, _alternatives(list(left), run), strict=True))
            names = list(left)
            left = {names[index]: left[names[index]] for index in run.left}
            if len(left) < 2 or _is_quiet(run):
                break
        self.rates.racing.add(len(compiled), time.monotonic() - since)
        ordered = [alternatives.get(name, Alternative(name, problem="not compiled")) for name in found]
        near = [one.interval for name in left if (one := alternatives[name]).interval is not None]
        if all(high - low < NOISY for low, high in near):
            self.remember(self._key(found), {"alternatives": [vars(one) for one in ordered]})
        return ordered

    def _piece(self, piece: Piece) -> Compiled:
        since, ready = time.monotonic(), self._ready.get(piece.fingerprint)
        found = ready() if ready else self.engine.compile(piece.module, piece.inputs, self.target.threads)
        self.rates.compiling.add(0 if ready else 1, time.monotonic() - since)
        return found

    def _known(self, found: Mapping[str, Piece | str]) -> list[Alternative] | None:
        known = (self.remembered(self._key(found), dict[str, list[Alternative]]) or {}).get("alternatives", [])
        return known if [one.name for one in known] == list(found) else None

    def _key(self, found: Mapping[str, Piece | str]) -> dict[str, Any]:
        prints = {name: piece if isinstance(piece, str) else piece.fingerprint for name, piece in found.items()}
        return {"piece": prints, "seconds": PIECE_SECONDS}

    def networks(
        self,
        networks: Mapping[str, Network],
        inputs: Sequence[Tensor],
        share: float = 1.0,
        engines: Mapping[str, Engine] | None = None,
    ) -> list[Comparison]:
        """Time whole networks against the first, which is the original; for a share of the time, where that is enough.

        `engines`: which compile them, by their names, where it is not the one that everything is measured on.

        Raises:
            EngineError: the engine does not take the original.
        """
        shapes = ["x".join(map(str, x.shape)) for x in inputs]
        hashes = {name: architecture_hash(network.program) for name, network in networks.items()}
        floating = {name: one.quantization.floating for name, one in (engines or {}).items() if one.quantization}
        key = {"networks": hashes, "shapes": shapes, "share": share, "floating": floating}
        remembered = self.remembered(key, dict[str, list[Comparison]])
        if remembered is not None and "comparisons" in remembered:
            return remembered["comparisons"]
        compiled: dict[str, Compiled] = {}
        for name, network in networks.items():
            try:
                key_of_one = f"{hashes[name]} {shapes} {floating.get(name)}"
                compiled[name] = self._compiled(key_of_one, network, inputs, (engines or {}).get(name, self.engine))
            except EngineError:
                if not compiled:
                    raise
        if len(compiled) < 2:
            return []
        since = time.monotonic()
        for patience in (1, PATIENCE):
            run = race(
                list(compiled.values()),
                self.engine,
                self.target.threads,
                tolerance=WHOLE_TOLERANCE,
                seconds=share * patience * WHOLE_SECONDS * (len(compiled) - 1),
            )
            if _is_quiet(run):
                break
        self.rates.whole_racing.add(len(compiled), time.monotonic() - since)
        medians = run.medians
        found = [
            Comparison(name, medians[index], medians[0], *run.ratio(index, 0), run.control[1])
            for index, name in enumerate(compiled)
            if index
        ]
        if all(one.interval[1] - one.interval[0] < NOISY for one in found):
            self.remember(key, {"comparisons": [vars(one) for one in found]})
        return found

    def _compiled(self, key: str, network: Network, inputs: Sequence[Tensor], engine: Engine) -> Compiled:
        """A network as the engine runs it; the last ones are kept, for one network is compared with several.

        They are told apart by what they compute on which shapes: weights do not matter to time.
        """
        found = self._kept.pop(key, None)
        if found is None:
            since = time.monotonic()
            found = engine.compile(network.program.graph_module, inputs, self.target.threads)
            self.rates.whole.add(1, time.monotonic() - since)
        self._kept = {**dict([*self._kept.items()][-2:]), key: found}
        return found

    def remembered(self, key: dict[str, Any], kind: type[T]) -> T | None:
        """What was kept under a key, under the same conditions."""
        return self.cache.read({**key, **vars(self.conditions)}, kind)

    def remember(self, key: dict[str, Any], value: Any) -> None:
        """Keep plain data under a key."""
        self.cache.put({**key, **vars(self.conditions)}, value)


def _beaten(run: Race) -> list[int]:
    """Those that need not be timed any further: no form makes up for it, or they are slower than the fastest surely."""
    ratios = [(1.0, run.control[1]), *(run.ratio(index, 0) for index in range(1, len(run.medians)))]
    far = NEAR * min(ratio for ratio, _ in ratios)
    clear = min(high for _, (_, high) in ratios) if len(run.times) >= CLEAR else far
    return [index for index in run.left if index and ratios[index][1][0] > min(far, clear)]


def _is_quiet(run: Race) -> bool:
    """Whether the first runner takes as long as itself."""
    _, (low, high) = run.control
    return high - low < NOISY / 2


def _large_product() -> Piece:
    """A matrix product as large as an engine is fast at: 268 million MACs."""
    with own_randomness():
        layer = nn.Conv2d(256, 256, 1).eval()
    inputs = (torch.zeros(1, 256, 64, 64),)
    return Piece(capture(layer, inputs, compare=False), inputs)


def _unless_slower(piece: Piece | str, speed: float, ms: float) -> Piece | str:
    """A piece, or words where its products at this speed (MACs a ms) take longer than the original."""
    if isinstance(piece, str) or piece.work / speed <= ms:
        return piece
    return f"not built: its {quantity(piece.work)} MACs alone would take longer than all of the original"


def _alternatives(names: Sequence[str], run: Race) -> list[Alternative]:
    """What a race tells of each; of the first, how it compares with itself."""
    ratios = [(1.0, run.control[1]), *(run.ratio(index, 0) for index in range(1, len(names)))]
    return [Alternative(name, ms, *found) for name, ms, found in zip(names, run.medians, ratios, strict=True)]
