"""Hidden channels chosen on images: what stays costs most to do without, comes first, and is fitted to what it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mofa_compiler
from mofa_compiler import Result, apply
from mofa_compiler.analysis.hidden import Hidden, hidden_channels
from mofa_compiler.calibration import Calibration, in_order
from mofa_compiler.calibration.hidden_ranks import ranks
from mofa_compiler.graph.call_spec import CallSpec
from mofa_compiler.passes import NarrowHidden, SepConvToPConv
from mofa_compiler.rewriting.layer_surgery import selection
from tests.calibration.small import Between, conv, distance, images, run, trained_like

X = images(6, 2)


def gated(m: Between, x: Tensor) -> Tensor:
    a, b = m.b(m.a(x)).chunk(2, 1)
    y = a * b
    return x + m.c(y * m.s(y.mean((2, 3), keepdim=True)))


def rows(m: Between, x: Tensor) -> Tensor:
    return x + m.c(F.gelu(m.a(x.permute(0, 2, 3, 1)))).permute(0, 3, 1, 2)


def dense(m: Between, x: Tensor) -> Tensor:
    return x + m.c(F.relu(m.n(m.a(x))))


BLOCKS: dict[str, Callable[[], Between]] = {
    "gate": lambda: Between(gated, a=conv(8, 32), b=conv(32, 32, 3, groups=32), s=conv(16, 16), c=conv(16, 8)),
    "rows": lambda: Between(rows, a=nn.Linear(8, 32), c=nn.Linear(32, 8)),
    "dense": lambda: Between(dense, a=conv(8, 16, 3), n=nn.BatchNorm2d(16), c=conv(16, 8, 3)),
    "groups": lambda: Between(dense, a=conv(8, 32), n=nn.GroupNorm(8, 32), c=conv(32, 8)),
}


def block(name: str) -> nn.Module:
    torch.manual_seed(0)
    return trained_like(BLOCKS[name]()).eval()


def error(result: Result, model: nn.Module) -> float:
    held_out = torch.cat(images(9, 2)[6:])
    return distance(run(result.model, held_out), run(model, held_out))


@pytest.mark.parametrize("name", BLOCKS)
def test_images_bring_the_output_nearer(name: str) -> None:
    model, roadmap = block(name), [NarrowHidden(keep=0.5, multiple=2)]
    free = apply(model, roadmap, X[0])
    result = apply(model, roadmap, X[0], Calibration(X, tuning=0))
    assert error(result, model) < 0.7 * error(free, model)
    assert result.after == free.after
    fitted = {edit.path for edit in result.diffs[-1].edits}
    assert "c" in fitted
    assert not result.diffs[-1].skips


def test_images_bring_a_shared_block_nearer() -> None:
    torch.manual_seed(0)
    model = trained_like(
        Between(lambda m, x: rows(m, F.silu(rows(m, x))), a=nn.Linear(8, 32), c=nn.Linear(32, 8))
    ).eval()
    roadmap = [NarrowHidden(keep=0.5)]
    result = apply(model, roadmap, X[0], Calibration(X, tuning=0))
    assert [len(edit.note) > 0 for edit in result.diffs[0].edits] == [True, False]
    assert error(result, model) < 0.7 * error(apply(model, roadmap, X[0]), model)


@pytest.mark.parametrize("name", BLOCKS)
def test_what_stays_comes_first(name: str) -> None:
    model = block(name)
    roadmap = [NarrowHidden(keep=0.5, multiple=2)]
    result = apply(model, roadmap, X[0], Calibration(X, fit=False, tuning=0))
    assert result.channel_orders
    aligned = in_order(result.original.program, result.channel_orders)
    assert distance(run(aligned.graph_module, X[0]), run(model, X[0])) < 1e-5
    was, now = (program.modules["a"].weight for program in (aligned, result.rewritten.program))
    parts = 2 if name == "gate" else 1
    for whole, left in zip(was.chunk(parts), now.chunk(parts), strict=True):
        assert torch.equal(whole[: len(left)], left)


def test_the_channels_that_matter_on_these_images_stay() -> None:
    model = Between(lambda m, x: x + m.c(F.relu(m.a(x))), a=conv(8, 16), c=conv(16, 8)).eval()
    with torch.no_grad():
        model.a.bias.fill_(0.5)
        model.a.bias[::2] = -50  # dead on all images, though not by the weights' own size
    original = apply(model, [], X[0]).original
    rewritten = apply(model, [NarrowHidden(keep=0.5)], X[0]).rewritten
    ((_, places),) = ranks(original, rewritten, [CallSpec((x,)) for x in X]).kept.values()
    assert np.array_equal(places, np.arange(1, 16, 2))


def test_the_channels_that_matter_at_any_call_stay() -> None:
    def twice(m: Between, x: Tensor) -> Tensor:
        return m.c(F.relu(m.a(x.abs()))) + m.c(F.relu(m.a(-x.abs())))

    model = Between(twice, a=conv(8, 16), c=conv(16, 8)).eval()
    with torch.no_grad():
        model.a.weight.abs_()
        model.a.bias.fill_(-50)  # dead at both calls
        model.a.bias[::2] = 0  # alive at the first
        model.a.weight[::4] *= -1  # or at the second
    original = apply(model, [], X[0]).original
    rewritten = apply(model, [NarrowHidden(keep=0.5)], X[0]).rewritten
    ((_, places),) = ranks(original, rewritten, [CallSpec((torch.randn(2, 3, 16, 16),))]).kept.values()
    hidden = hidden_channels(original)["a"]
    assert isinstance(hidden, Hidden)
    channels = hidden.blocks(hidden.readings[0].value)[places, 0]
    assert set(channels.tolist()) == {*range(0, 16, 2)}


def test_without_choosing_the_choice_is_the_weights() -> None:
    model = block("gate")
    free = apply(model, [NarrowHidden()], X[0])
    result = apply(model, [NarrowHidden()], X[0], Calibration(X, order=False, tuning=0))
    chosen = [
        {node.name: found.kept for node in one.rewritten.program.graph.nodes if (found := selection(node))}
        for one in (free, result)
    ]
    assert chosen[0] == chosen[1]
    assert not result.channel_orders


def test_partial_convolutions_convolve_what_stays() -> None:
    """Both choose among the same channels: those that stay come first, and of them those that are worth convolving."""
    model = block("gate")
    roadmap = [NarrowHidden(keep=0.5), SepConvToPConv()]
    assert len(apply(model, [NarrowHidden(keep=0.5)], X[0]).diffs[0].edits) == 4
    result = apply(model, roadmap, X[0], Calibration(X, tuning=0))
    assert all(verdict.holds for verdict in result.verdicts)
    assert error(result, model) <= error(apply(model, roadmap, X[0]), model)


@pytest.mark.parametrize("calibration", [None, Calibration(X, tuning=2)], ids=["free", "calibrated"])
def test_bundle(calibration: Calibration | None, tmp_path: Path) -> None:
    model = block("gate")
    result = apply(model, [NarrowHidden()], X[0], calibration)
    folder = result.save(tmp_path / "bundle")
    loaded, replayed = mofa_compiler.load(folder), mofa_compiler.replay(folder, model)
    assert torch.equal(run(loaded, X[0]), run(result.model, X[0]))
    assert replayed.channel_orders == result.channel_orders
    again = [bool(torch.equal(t, result.model.state_dict()[k])) for k, t in replayed.model.state_dict().items()]
    assert all(again) or calibration is not None
    assert mofa_compiler.verify(folder, model).ok
