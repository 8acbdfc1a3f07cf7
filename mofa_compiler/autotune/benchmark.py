"""Pieces and whole networks timed on the target's engine, and remembered on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..analysis.fingerprint import architecture_hash
from ..analysis.network import Network
from ..base.errors import EngineError, MofaError, one_line
from ..frontend import capture
from ..result.decisions import Alternative, Comparison
from ..rewriting.target import Conditions, Target
from ..runtime import Cache, Compiled, Race, race
from ..runtime import engine as find_engine

T = TypeVar("T")

PIECE_SECONDS, PIECE_TOLERANCE = 0.4, 0.02
"""Time for each alternative of a piece, and the precision at which that is enough"""

NOISY = 0.2
"""A ratio's interval as wide as this says too little to be remembered"""

PATIENCE = 3
"""Where the original against itself is too noisy, it is all measured again, so many times as long"""

WHOLE_SECONDS, WHOLE_TOLERANCE = 8.0, 0.01


class Trials:
    """Measures on one engine; what was measured before, on the same kind of machine, is read from disk."""

    def __init__(self, target: Target, shape: str, cache: Cache | None = None):
        self.target, self.engine = target, find_engine(target.engine)
        self.cache = Cache() if cache is None else cache
        self._kept: list[tuple[Network, Compiled]] = []
        self.conditions = Conditions(
            self.engine.name, self.engine.version(), torch.__version__, self.engine.processor(), target.threads, shape
        )

    def pieces(self, found: Mapping[str, tuple[nn.Module, Sequence[Tensor]] | str]) -> list[Alternative]:
        """Time alternatives of one piece against the first; text in place of one says why there is none."""
        key = {
            "piece": {name: piece if isinstance(piece, str) else fingerprint(*piece) for name, piece in found.items()},
            "seconds": PIECE_SECONDS,
        }
        remembered = (self._remembered(key, dict[str, list[Alternative]]) or {}).get("alternatives", [])
        if [one.name for one in remembered] == list(found):
            return remembered
        compiled: dict[str, Compiled] = {}
        problems = {name: piece for name, piece in found.items() if isinstance(piece, str)}
        for name, piece in found.items():
            if isinstance(piece, str):
                continue
            try:
                compiled[name] = self.engine.compile(*piece, self.target.threads)
            except EngineError as error:
                problems[name] = str(error)
        first = next(iter(found))
        alternatives = {name: Alternative(name, problem=problem) for name, problem in problems.items()}
        if first in compiled:
            run = race(
                list(compiled.values()),
                self.engine,
                self.target.threads,
                tolerance=PIECE_TOLERANCE,
                seconds=PIECE_SECONDS * len(compiled),
                rounds=(15, 400),
            )
            alternatives |= dict(zip(compiled, _alternatives(list(compiled), run), strict=True))
        ordered = [alternatives.get(name, Alternative(name, problem="not compiled")) for name in found]
        widths = [one.interval[1] - one.interval[0] for one in ordered if one.interval is not None]
        if all(width < NOISY for width in widths):
            self._remember(key, {"alternatives": [vars(one) for one in ordered]})
        return ordered

    def networks(self, networks: Mapping[str, Network], inputs: Sequence[Tensor]) -> list[Comparison]:
        """Time whole networks against the first, which is the original.

        Raises:
            EngineError: the engine does not take the original.
        """
        shapes = ["x".join(map(str, x.shape)) for x in inputs]
        key = {"networks": {name: architecture_hash(n.program) for name, n in networks.items()}, "shapes": shapes}
        remembered = self._remembered(key, dict[str, list[Comparison]])
        if remembered is not None and "comparisons" in remembered:
            return remembered["comparisons"]
        compiled: dict[str, Compiled] = {}
        for name, network in networks.items():
            try:
                compiled[name] = self._compiled(network, inputs)
            except EngineError:
                if not compiled:
                    raise
        if len(compiled) < 2:
            return []
        for patience in (1, PATIENCE):
            run = race(
                list(compiled.values()),
                self.engine,
                self.target.threads,
                tolerance=WHOLE_TOLERANCE,
                seconds=patience * WHOLE_SECONDS * (len(compiled) - 1),
            )
            _, (low, high) = run.control
            if high - low < NOISY / 2:
                break
        medians = run.medians
        found = [
            Comparison(name, medians[index], medians[0], *run.ratio(index, 0), run.control[1])
            for index, name in enumerate(compiled)
            if index
        ]
        if all(one.interval[1] - one.interval[0] < NOISY for one in found):
            self._remember(key, {"comparisons": [vars(one) for one in found]})
        return found

    def _compiled(self, network: Network, inputs: Sequence[Tensor]) -> Compiled:
        """A network as the engine runs it; the last ones are kept, for one network is compared with several."""
        for known, compiled in self._kept:
            if known is network:
                return compiled
        found = self.engine.compile(network.program.graph_module, inputs, self.target.threads)
        self._kept = [*self._kept[-2:], (network, found)]
        return found

    def _remembered(self, key: dict[str, Any], kind: type[T]) -> T | None:
        return self.cache.read({**key, **vars(self.conditions)}, kind)

    def _remember(self, key: dict[str, Any], value: dict[str, Any]) -> None:
        self.cache.put({**key, **vars(self.conditions)}, value)


def fingerprint(module: nn.Module, inputs: Sequence[Tensor]) -> str:
    """What a module computes on which shapes, without its weights; weights do not matter to time."""
    shapes = " ".join("x".join(map(str, x.shape)) for x in inputs)
    try:
        return f"{architecture_hash(capture(module, tuple(inputs), compare=False))} {shapes}"
    except MofaError as error:
        return f"{one_line(error)} {shapes}"


def _alternatives(names: Sequence[str], run: Race) -> list[Alternative]:
    medians = run.medians
    return [
        Alternative(name, medians[index], *(run.ratio(index, 0) if index else (1.0, (1.0, 1.0))))
        for index, name in enumerate(names)
    ]
