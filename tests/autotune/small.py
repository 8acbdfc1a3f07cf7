"""Small networks, and an engine whose times are what the test says: nothing here depends on a clock."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mofa_compiler import frontier
from mofa_compiler.analysis.network import Network
from mofa_compiler.autotune import Alternative, Conditions, search
from mofa_compiler.autotune.schedule import Rates
from mofa_compiler.autotune.subgraphs import Piece
from mofa_compiler.result.decisions import Comparison
from mofa_compiler.runtime import Compiled
from mofa_compiler.runtime.engines.pytorch import Eager
from mofa_compiler.runtime.racing import Race

Cost = Callable[[nn.Module], float]
"""Milliseconds that a module is said to take"""


def depthwise_taps(module: nn.Module) -> float:
    """1, and more for every tap of a depthwise convolution: what is smaller is faster."""
    taps = sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Conv2d) and m.groups > 1)
    return 1 + taps / 100


def invented(cost: Cost, asked: list[str] | None = None) -> type:
    """What stands for `Trials`; what takes forever is not compiled. `asked` hears what is asked for."""
    heard = [] if asked is None else asked

    class Invented:
        def __init__(self, target: Any, shape: str):
            self.target, self.engine, self.rates = target, Eager().at(target.precision), Rates(target.engine)
            self.conditions = Conditions(target.engine, "1", torch.__version__, "none", target.threads, shape)

        def promising(
            self, groups: Sequence[Mapping[str, Piece | str]], tell: Any
        ) -> Sequence[Mapping[str, Piece | str]]:
            return groups

        def remembered(self, key: dict[str, Any], kind: Any) -> None:
            pass

        def remember(self, key: dict[str, Any], value: Any) -> None:
            pass

        def prepare(self, groups: Sequence[Mapping[str, Piece | str]], tell: Any) -> None:
            pass

        def pieces(self, found: Mapping[str, Piece | str]) -> list[Alternative]:
            heard.append("piece")
            times = {name: None if isinstance(piece, str) else cost(piece.module) for name, piece in found.items()}
            first = next(iter(times.values()))
            assert first is not None
            alternatives = []
            for name, ms in times.items():
                ratio = None if ms is None else ms / first
                interval = None if ratio is None else (ratio - 1e-6, ratio + 1e-6)
                alternatives.append(Alternative(name, ms, ratio, interval))
            return alternatives

        def networks(
            self, networks: Mapping[str, Network], inputs: Sequence[Tensor], share: float = 1.0, engines: Any = None
        ) -> list[Comparison]:
            heard.append("network")
            times = {name: cost(network.program.graph_module) for name, network in networks.items()}
            first, *rest = times
            ratios = {name: times[name] / times[first] for name in rest if times[name] < math.inf}
            return [
                Comparison(name, times[name], times[first], ratio, (ratio - 1e-6, ratio + 1e-6), (0.999, 1.001))
                for name, ratio in ratios.items()
            ]

    return Invented


def invent(monkeypatch: pytest.MonkeyPatch, cost: Cost) -> list[str]:
    """Put invented times in the place of measured ones; returns what was asked for, as it is asked."""
    asked: list[str] = []
    monkeypatch.setattr(search, "Trials", invented(cost, asked))
    return asked


class Block(nn.Module):
    """Two separable convolutions, the first of which contracts channels, on a residual stream."""

    def __init__(self, channels: int = 16):
        super().__init__()
        self.narrow = nn.Sequential(
            nn.Conv2d(channels, channels, 5, padding=2, groups=channels), nn.Conv2d(channels, channels // 4, 1)
        )
        self.wide = nn.Sequential(
            nn.Conv2d(channels // 4, channels // 4, 5, padding=2, groups=channels // 4),
            nn.Conv2d(channels // 4, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.wide(self.narrow(x).relu())


class Tower(nn.Module):
    """Input and output (N, 3, H, W): three blocks that are alike, between two dense convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.blocks = nn.Sequential(Block(), Block(), Block())
        self.last = nn.Conv2d(16, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.blocks(self.first(x)))


class _Timed(Compiled):
    """What takes as long as the test says."""

    packed = b""

    def __init__(self, ms: float):
        self.ms = ms

    def run(self) -> None:
        pass

    def outputs(self, inputs: Sequence[Tensor] | None = None) -> list[Tensor]:
        return []


def invent_race(monkeypatch: pytest.MonkeyPatch, cost: Cost) -> None:
    """Put invented times also in the place of those of finished networks in one race; memory is not known."""

    class Invented(Eager):
        def compile(self, module: nn.Module, inputs: Sequence[Tensor], threads: int = 1) -> Compiled:
            return _Timed(cost(module))

    def raced(runners: Sequence[_Timed], *_: Any, **__: Any) -> Race:
        row = [one.ms for one in runners]
        return Race(np.asarray([[*row, row[0]]] * 3), (1,) * len(row), "narrow enough")

    monkeypatch.setattr(frontier, "find_engine", lambda name, precision: Invented())
    monkeypatch.setattr(frontier, "race", raced)
    monkeypatch.setattr(frontier, "peak_memory", lambda *_: None)
