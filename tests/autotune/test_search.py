"""What is chosen follows from the times, whatever they are; times are invented here."""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from unittest.mock import Mock

import pytest
import torch

from mofa_compiler import Roadmap, apply, load, replay
from mofa_compiler.autotune import session, track_record
from mofa_compiler.autotune.search import DECIDED
from mofa_compiler.base.errors import EngineError, RoadmapError
from mofa_compiler.bundle.recipe import read_recipe
from mofa_compiler.compiler import applying
from mofa_compiler.passes import LowerGates, SepConvToPConv, ShrinkKernels
from mofa_compiler.report.content import for_reading
from mofa_compiler.report.document import markdown
from mofa_compiler.report.model import Report
from tests.autotune.small import Tower, depthwise_taps, invent
from tests.raising import raising

X = torch.rand(1, 3, 32, 32)
TARGET = Roadmap([SepConvToPConv()], name="mine").with_target("eager")


@pytest.fixture
def tower() -> Tower:
    return Tower().eval()


def test_what_takes_least_time_is_chosen(tower: Tower, monkeypatch: pytest.MonkeyPatch) -> None:
    invent(monkeypatch, depthwise_taps)  # a PConv has no depthwise taps at all
    result = apply(tower, TARGET, X)
    assert {one.chosen for one in result.decisions.layers} == {"sepconv-to-pconv"}
    assert [pass_.name for pass_ in result.roadmap] == ["sepconv-to-pconv"]
    assert result.roadmap.target is None, "it is decided"
    assert result.decisions.chosen == DECIDED
    assert len(result.diffs[0].rewritten) == 6


def test_nothing_faster_leaves_the_original(tower: Tower, monkeypatch: pytest.MonkeyPatch) -> None:
    invent(monkeypatch, lambda module: 1 + 1000 / (1 + depthwise_taps(module)))
    result = apply(tower, TARGET, X)
    assert result.decisions.chosen == "original"
    assert result.decisions.final is None
    assert "it was left as it is" in result.decisions.sentence
    assert torch.equal(result.model.eval()(X), tower(X))


def test_a_lowering_that_was_measured_and_not_kept_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = [torch.nn.Conv2d(3, 8, 1), torch.nn.Conv2d(8, 16, 1), torch.nn.GLU(1), torch.nn.Conv2d(8, 3, 1)]
    invent(monkeypatch, lambda module: 12.5 if "sigmoid" in str(module.code) else 10.0)
    result = apply(torch.nn.Sequential(*layers).eval(), Roadmap([LowerGates()]).with_target("eager"), X)
    assert result.decisions is not None and result.decisions.chosen == "original"
    measured = {one.name: one.ratio for one in result.decisions.networks}
    name = next(name for name in measured if "lower-gates" in name)
    assert measured[name] == pytest.approx(1.25)
    report = Report.model_validate(result.report)
    written = markdown(for_reading(report))
    assert f"{name} (1.25)" in written and "the original was kept" in written
    assert "No pass was kept" in written and "The roadmap has no passes" not in written


def test_always_carries_the_roadmap_out(tower: Tower, monkeypatch: pytest.MonkeyPatch) -> None:
    invent(monkeypatch, lambda module: 1 + 1000 / (1 + depthwise_taps(module)))
    always = Roadmap([SepConvToPConv()]).with_target("eager", keep_if="always")
    result = apply(tower, always, X)
    assert result.decisions.chosen == DECIDED
    assert all(one.chosen != "original" for one in result.decisions.layers)


@pytest.mark.parametrize("keep_if", ["faster", "always"])
def test_what_is_not_faster_on_the_layers_with_most_work_is_not_timed_on_others(
    tower: Tower, monkeypatch: pytest.MonkeyPatch, keep_if: Literal["faster", "always"]
) -> None:
    monkeypatch.setattr(track_record, "ENOUGH", 1)
    invent(monkeypatch, lambda module: 1 + 1000 / (1 + depthwise_taps(module)))
    decisions = apply(tower, Roadmap([SepConvToPConv()]).with_target("eager", keep_if=keep_if), X).decisions
    largest, other = ({one.name: one.ms for one in layers.alternatives} for layers in decisions.layers)
    assert "sepconv-to-pconv" in largest
    given_up = {name for name in other if name in largest and name != "original"} if keep_if == "faster" else set()
    assert {name for name in other if other[name] is None} == given_up


def test_a_network_that_is_not_faster_as_a_whole_is_left_alone(tower: Tower, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece may be faster and the whole yet slower: only the whole counts."""
    whole = len(list(tower.modules()))

    def cost(module: torch.nn.Module) -> float:
        big = len(list(module.modules())) > whole / 2
        return 1 + 1000 / (1 + depthwise_taps(module)) if big else depthwise_taps(module)

    invent(monkeypatch, cost)
    result = apply(tower, TARGET, X)
    assert {one.chosen for one in result.decisions.layers} == {"sepconv-to-pconv"}
    assert result.decisions.chosen == "original"
    assert len(result.roadmap) == 0


@pytest.mark.slow
def test_a_decided_recipe_is_replayed_without_measuring(
    tower: Tower, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = invent(monkeypatch, depthwise_taps)
    result = apply(tower, TARGET, X)
    folder = result.save(tmp_path / "bundle")
    assert asked
    asked.clear()
    again = replay(folder, tower)
    assert not asked
    assert torch.equal(again.model.eval()(X), result.model.eval()(X))
    assert torch.equal(load(folder).eval()(X), result.model.eval()(X))
    measured = read_recipe(folder)["measured"]
    assert measured["conditions"]["engine"] == "eager"
    assert measured["sentence"] == result.decisions.sentence


def test_reports_say_what_was_measured(tower: Tower, monkeypatch: pytest.MonkeyPatch) -> None:
    invent(monkeypatch, depthwise_taps)
    report = apply(tower, TARGET, X).report
    text = markdown(for_reading(Report.model_validate(report)))
    assert report["decisions"]["sentence"][:20] in text.replace("\\", "")
    assert "blocks.0.narrow.0 and 2 alike" in text


@pytest.mark.parametrize(("size", "captures"), [(None, 1), ("1x3x32x32", 1), ("1x3x48x64", 2)])
def test_the_model_is_captured_again_only_at_another_size(
    tower: Tower, monkeypatch: pytest.MonkeyPatch, size: str | None, captures: int
) -> None:
    invent(monkeypatch, depthwise_taps)
    captured = Mock(wraps=applying.capture)
    for module in (applying, session):
        monkeypatch.setattr(module, "capture", captured)
    result = apply(tower, Roadmap([ShrinkKernels()]).with_target("eager", input=size), X)
    assert captured.call_count == captures
    assert result.decisions.conditions.input == (size or "1x3x32x32")
    assert result.inputs[0].shape == (1, 3, 32, 32)


def test_the_search_draws_no_random_numbers_of_the_callers(tower: Tower, monkeypatch: pytest.MonkeyPatch) -> None:
    invent(monkeypatch, depthwise_taps)
    before = torch.get_rng_state()
    apply(tower, TARGET, X)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_target_round_trips_through_toml() -> None:
    roadmap = Roadmap([ShrinkKernels(layers=("enc*",))]).with_target("xnnpack", 4, input="1x3x64x64", keep_if="always")
    assert Roadmap.from_toml(roadmap.to_toml()) == roadmap
    short = Roadmap.from_toml('target = "eager"\n[[pass]]\nname = "shrink-kernels"\n')
    assert short.target is not None and short.target.threads == 1 and short.target.keep_if == "faster"


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("3", ("bad-value", "target = 3")),
        ('{engine = "eager", thread = 2}', ("unknown-option", "'thread'")),
        ('{engine = "eager", threads = 0}', ("bad-value", "threads = 0")),
        ('{engine = "eager", input = "3 by 4"}', ("bad-value", "input")),
        ('{engine = "eager", keep_if = "slower"}', ("bad-value", "keep_if = 'slower'")),
        ("{threads = 2}", ("bad-value", "engine")),
    ],
)
def test_a_bad_target(target: str, said: tuple[str, ...]) -> None:
    with raising(RoadmapError, *said):
        Roadmap.from_toml(f'target = {target}\n[[pass]]\nname = "shrink-kernels"\n')


def test_an_engine_that_is_not_there(tower: Tower) -> None:
    with raising(EngineError, "unknown-name", "'xnnpack'"):
        apply(tower, Roadmap.load("mofa").with_target("xnpack"), X)


def test_a_bound_needs_a_target(tower: Tower) -> None:
    with raising(RoadmapError, "needs-option", "with_target"):
        apply(tower, "mofa", X, max_loss=0.5)


@pytest.mark.slow
def test_measured_for_real(tower: Tower, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the times are: what was decided is what stands there, and the second time nothing is measured."""
    from mofa_compiler.autotune import benchmark

    monkeypatch.setenv("MOFA_CACHE", str(tmp_path))
    for name, value in {"PIECE_SECONDS": 0.02, "WHOLE_SECONDS": 0.05, "NOISY": 1e9}.items():
        monkeypatch.setattr(benchmark, name, value)
    first = apply(tower, TARGET, X)
    assert list(tmp_path.iterdir())
    monkeypatch.setattr(benchmark, "race", None)
    second = apply(tower, TARGET, X)
    assert second.decisions == first.decisions
    assert torch.equal(second.model.eval()(X), first.model.eval()(X))
