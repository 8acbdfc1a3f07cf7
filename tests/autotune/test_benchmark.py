"""What cannot win is not built, what was measured is remembered: on an engine whose speed is known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mofa_compiler.analysis.anatomy import infer
from mofa_compiler.analysis.network import Network
from mofa_compiler.autotune import Target, benchmark
from mofa_compiler.autotune.benchmark import Trials
from mofa_compiler.autotune.subgraphs import Piece
from mofa_compiler.frontend import capture
from mofa_compiler.runtime import Cache, Compiled, Race, engine


def piece(*layers: nn.Module, channels: int = 8) -> Piece:
    inputs = (torch.zeros(1, channels, 16, 16),)
    return Piece(capture(nn.Sequential(*layers).eval(), inputs, compare=False), inputs)


@pytest.fixture
def trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trials:
    """A MAC takes a nanosecond, whatever is computed."""

    def invented(runner: Compiled, *_: object) -> float:
        return runner.macs / 1e6

    def compiled(network: nn.Module, inputs: Sequence[Tensor], threads: int) -> Compiled:
        made = compile_(network, inputs, threads)
        made.macs = Piece(capture(network, tuple(inputs), compare=False), tuple(inputs)).work  # type: ignore[attr-defined]
        return made

    made = Trials(Target("eager"), "1x8x16x16", Cache(tmp_path))
    compile_ = made.engine.compile
    monkeypatch.setattr(made.engine, "compile", compiled)
    monkeypatch.setattr(benchmark, "shortest", invented)
    return made


def test_work_counts_every_product_but_those_that_winograd_saves() -> None:
    assert piece(nn.Conv2d(8, 16, 1)).work == 8 * 16 * 256
    assert piece(nn.Conv2d(8, 8, 3, padding=1)).work == pytest.approx(8 * 8 * 9 * 256 * 4 / 9)
    assert piece(nn.Conv2d(8, 8, 3, padding=1, groups=8)).work == 8 * 9 * 256


def test_what_multiplies_more_than_the_original_can_is_not_built(trials: Trials) -> None:
    small, large = piece(nn.Conv2d(8, 8, 1)), piece(nn.Conv2d(8, 64, 1), nn.Conv2d(64, 8, 1))
    (left,) = trials.promising([{"original": small, "larger": large, "refused": "no"}], lambda *_: None)
    assert left["original"] is small
    assert isinstance(left["larger"], str) and "262 k" in left["larger"]
    assert left["refused"] == "no"
    (other,) = trials.promising([{"original": large, "smaller": small}], lambda *_: None)
    assert other == {"original": large, "smaller": small}


def test_an_original_that_is_faster_than_a_large_product_says_how_fast_the_engine_is(
    trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "shortest", lambda runner, *_: runner.macs / (1e6 if runner.macs > 1e8 else 4e6))
    original, narrower = piece(nn.Conv2d(8, 8, 1)), piece(nn.Conv2d(8, 6, 1), nn.Conv2d(6, 8, 1))
    wider = piece(nn.Conv2d(8, 16, 1), nn.Conv2d(16, 8, 1))
    (left,) = trials.promising([{"original": original, "narrower": narrower, "wider": wider}], lambda *_: None)
    assert left["original"] is original
    assert isinstance(left["wider"], str)


@pytest.mark.parametrize(
    ("rounds", "ratios", "beaten"),
    [
        (benchmark.CLEAR, [1.0, 0.8, 0.9], [2]),
        (benchmark.CLEAR, [1.0, 1.1, 1.2], [1, 2]),
        (benchmark.CLEAR, [1.0, 0.8, 0.8], []),
        (benchmark.CLEAR - 1, [1.0, 0.8, 0.9], []),
        (benchmark.CLEAR - 1, [1.0, 0.8, 1.1], [2]),  # no form makes up for that
    ],
)
def test_what_is_behind_the_fastest_surely_is_beaten(rounds: int, ratios: list[float], beaten: list[int]) -> None:
    noise = 1 + 0.001 * np.arange(rounds)[:, None]
    times = noise * np.asarray([*ratios, ratios[0]])
    assert benchmark._beaten(Race(times, (1,) * len(ratios), "most rounds")) == beaten


def test_networks_that_compute_the_same_are_compiled_once(trials: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    def network(channels: int) -> Network:
        program = piece(nn.Conv2d(8, channels, 1)).program
        return Network(program, infer(program))

    compiled: list[nn.Module] = []
    compile_ = trials.engine.compile
    monkeypatch.setattr(trials.engine, "compile", lambda *given: compiled.append(given[0]) or compile_(*given))
    monkeypatch.setattr(benchmark, "WHOLE_SECONDS", 0.01)
    trials.networks({"original": network(8), "wider": network(16)}, [torch.zeros(1, 8, 16, 16)])
    trials.networks({"original": network(8), "other": network(12)}, [torch.zeros(1, 8, 16, 16)])
    assert len(compiled) == 3


def test_what_was_measured_alone_is_remembered(trials: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = [{"original": piece(nn.Conv2d(8, 8, 1)), "larger": piece(nn.Conv2d(8, 99, 1))}]
    first = trials.promising(groups, lambda *_: None)
    again = Trials(trials.target, "1x8x16x16", trials.cache)
    monkeypatch.setattr(type(again.engine), "compile", None)
    assert again.promising(groups, lambda *_: None) == first


def test_equal_pieces_have_one_fingerprint_whatever_their_weights() -> None:
    assert piece(nn.Conv2d(8, 8, 1)).fingerprint == piece(nn.Conv2d(8, 8, 1)).fingerprint
    assert piece(nn.Conv2d(8, 8, 1)).fingerprint != piece(nn.Conv2d(8, 8, 3)).fingerprint
    assert engine("eager").at_once == 1
