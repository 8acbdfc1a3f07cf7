"""Exact passes are judged together; the times are invented, the passes are real."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import nn

from architectures import NAFNet
from mofa_compiler.analysis.anatomy import infer
from mofa_compiler.analysis.network import Network
from mofa_compiler.autotune import Alternative, Target
from mofa_compiler.autotune.lowering_search import faster_lowerings
from mofa_compiler.frontend import capture
from mofa_compiler.passes import ChannelsLast, LowerGates, LowerLayerNorm, LowerShuffle
from mofa_compiler.rewriting.pass_api import Pass
from tests.autotune.small import invented

X = torch.rand(1, 3, 32, 32)
OFFERED = [LowerLayerNorm(), LowerGates(), LowerShuffle(), ChannelsLast()]


@pytest.fixture(scope="module")
def network() -> Network:
    program = capture(NAFNet(width=8, enc_blk_nums=(1,), dec_blk_nums=(1,)).eval(), X)
    return Network(program, infer(program))


def kept(
    network: Network,
    times: dict[str, float],
    alone: dict[str, float],
    noise: float = 0.0,
    offered: Sequence[Pass] = OFFERED,
) -> list[str]:
    """What is kept where a pass has a share in the time that depends on whether images lie with channels last."""

    def cost(module: nn.Module) -> float:
        code = str(module.code)
        there = {
            "lower-layer-norm": "apply_LayerNormFunction" not in code,
            "lower-gates": "chunk" not in code,
            "lower-shuffle": not any(isinstance(one, nn.PixelShuffle) for one in module.modules()),
            "channels-last": "channels_last" in code,
        }
        shares = times if there["channels-last"] else alone
        return 10 + sum(shares.get(name, 0.0) for name, is_there in there.items() if is_there)

    trials = invented(cost)(Target("eager"), "1x3x32x32")
    timed = trials.pieces
    trials.pieces = lambda found: [_noisy(one, noise) for one in timed(found)]
    kept, left = faster_lowerings(network, offered, trials, [X], lambda *_: None)
    names = [pass_.name for pass_ in kept]
    assert " + ".join(names) not in [one.name for one in left]
    return names


def _noisy(one: Alternative, noise: float) -> Alternative:
    """The same with an interval that is wider on both sides."""
    low, high = one.interval or (0.0, 0.0)
    return replace(one, interval=one.interval and (low - noise, high + noise))


@pytest.mark.slow
def test_what_pays_only_among_others_is_kept(network: Network) -> None:
    times = {"lower-layer-norm": -3.0, "lower-gates": -1.0, "channels-last": -1.0}
    assert kept(network, times, alone={"lower-layer-norm": 1.0}) == ["lower-layer-norm", "lower-gates", "channels-last"]


@pytest.mark.slow
def test_what_costs_time_is_left_out(network: Network) -> None:
    assert kept(network, {"lower-layer-norm": 0.5, "lower-shuffle": -1.0}, alone={"lower-shuffle": -1.0}) == [
        "lower-shuffle"
    ]


@pytest.mark.parametrize("pass_", OFFERED[:2], ids=lambda pass_: pass_.name)
def test_blocks_whose_times_are_noise_leave_it_to_the_whole_network(network: Network, pass_: Pass) -> None:
    assert kept(network, {}, {pass_.name: -4.0}, noise=0.6, offered=[pass_]) == [pass_.name]
    assert kept(network, {}, {}, noise=0.6, offered=[pass_]) == []


@pytest.mark.slow
def test_nothing_is_kept_where_the_original_is_as_fast(network: Network) -> None:
    assert kept(network, {}, {}) == []
    assert kept(network, dict.fromkeys(["lower-gates", "channels-last"], 1.0), {"lower-gates": 1.0}) == []


def test_what_the_engine_does_not_take_is_left_out(network: Network) -> None:
    assert kept(network, {"channels-last": float("inf"), "lower-gates": -1.0}, alone={"lower-gates": -1.0}) == [
        "lower-layer-norm",
        "lower-gates",
        "lower-shuffle",
    ]
