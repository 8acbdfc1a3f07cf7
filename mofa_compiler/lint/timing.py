"""What a rule's fixes do to the time of the whole network, measured once and remembered on disk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..analysis.fingerprint import architecture_hash
from ..autotune.benchmark import Trials
from ..autotune.lowering_search import carried_out
from ..result.decisions import Comparison
from ..rewriting.pass_api import Pass
from ..rewriting.target import Target
from ..runtime import Cache
from .rule import Subject


class Timing:
    """Times fixes on one engine.

    Raises:
        EngineError: on construction, where the engine is unknown or not installed.
    """

    def __init__(self, engine: str, threads: int, subject: Subject, cache: Cache | None = None):
        self.subject = subject
        self.inputs = subject.inputs()
        shape = ", ".join("x".join(map(str, x.shape)) for x in self.inputs)
        self.cache = Cache() if cache is None else cache
        self.trials = Trials(Target(engine, threads), shape, self.cache)

    @property
    def engine(self) -> str:
        """Name and version."""
        conditions = self.trials.conditions
        return f"{conditions.engine} {conditions.version}"

    def remembered(self, passes: Sequence[Pass]) -> Comparison | None:
        """What was measured before: the network after these passes against the network as it is."""
        return self.cache.read(self._key(passes), Comparison)

    def measure(self, passes: Sequence[Pass]) -> Comparison | None:
        """The same, measured now if it was not before; None where the engine does not take the rewritten network.

        Raises:
            EngineError: it does not take the original one.
        """
        known = self.remembered(passes)
        if known is not None:
            return known
        network = self.subject.network
        contestants = {"original": network, "fixed": carried_out(network, passes)}
        found = self.trials.networks(contestants, self.inputs)
        if found:
            self.cache.put(self._key(passes), vars(found[0]))
        return found[0] if found else None

    def _key(self, passes: Sequence[Pass]) -> dict[str, Any]:
        names = [{"pass": one.name, **{k: str(v) for k, v in one.options.items()}} for one in passes]
        program = architecture_hash(self.subject.network.program)
        return {"lint": program, "passes": names, **vars(self.trials.conditions)}
