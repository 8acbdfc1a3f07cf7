"""A network within several bounds: what is made, what is found again, and what a folder has to be."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from mofa_compiler import Bound, Roadmap, apply, front, frontier, load
from mofa_compiler.base.errors import BundleError, CalibrationError, EngineError, ReportError, RoadmapError
from mofa_compiler.calibration import Calibration
from mofa_compiler.compiler import Start
from mofa_compiler.passes import SepConvToPConv
from mofa_compiler.report.priced import Front
from mofa_compiler.report.reading import read_report
from tests.autotune.small import Tower, depthwise_taps, invent, invent_race
from tests.killing import killed_at
from tests.raising import raising

X = torch.rand(1, 3, 32, 32)
ROADMAP = Roadmap([SepConvToPConv()]).with_target("eager")
BOUNDS = [Bound("psnr", 100.0), Bound("psnr", 5.0)]


def tower(seed: int = 0) -> Tower:
    torch.manual_seed(seed)
    return Tower().eval()


def calibration() -> Calibration:
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.rand(2, 3, 32, 32, generator=generator) for _ in range(3)]
    return Calibration(inputs, order=False, fit=False, tuning=0)


def priced(out: Path, bounds: Sequence[Bound] = BOUNDS, network: Tower | None = None, **options: Any) -> Front:
    return front(network or tower(), ROADMAP, X, calibration(), out=out, bounds=bounds, **options)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Times are invented; the bundles that are made."""
    invent(monkeypatch, depthwise_taps)
    invent_race(monkeypatch, depthwise_taps)
    made: list[str] = []
    real = Start.result

    def result(self: Start, bound: Any = None) -> Any:
        made.append(str(bound))
        return real(self, bound)

    monkeypatch.setattr(Start, "result", result)
    return made


def test_a_bundle_each_and_all_measured_together(timed: list[str], tmp_path: Path) -> None:
    out = tmp_path / "deep" / "front"
    data = priced(out)
    assert [(one.name, one.kind, one.limit) for one in data.points] == [
        ("original", "original", None),
        ("exact", "front", None),
        ("100dB", "front", 100.0),
        ("5dB", "front", 5.0),
    ]
    original, exact, strict, lax = data.points
    assert original.ratio == exact.ratio == strict.ratio == 1.0 and lax.ratio < 1
    assert lax.ms == pytest.approx(depthwise_taps(load(out / "5dB")))
    assert strict.value == 120 and 5 <= (lax.value or 0) < 100
    assert lax.parameters == read_report(out / "5dB").after.parameters
    assert {one.name for one in data.best} >= {"5dB"}
    assert {path.name for path in out.iterdir()} == {"exact", "100dB", "5dB", "front.json", "front.md", "front.html"}
    kept = json.loads((out / "front.json").read_text())
    del kept["identity"]
    assert Front.model_validate(kept) == data
    (latency,) = read_report(out / "5dB").measurements
    assert latency.rewritten_ms == lax.ms


@pytest.mark.slow
def test_what_is_there_is_not_made_again(timed: list[str], tmp_path: Path) -> None:
    first = priced(tmp_path / "front")
    del timed[:]
    assert priced(tmp_path / "front") == first
    assert timed == []
    more = priced(tmp_path / "front", [*BOUNDS, Bound("psnr", 30.0)])
    assert timed == [str(Bound("psnr", 30.0))]
    assert [one.name for one in more.points] == ["original", "exact", "100dB", "30dB", "5dB"]


def test_it_goes_on_after_an_error(timed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Start.result

    def interrupted(self: Start, bound: Any = None) -> Any:
        if bound == BOUNDS[1]:
            raise KeyboardInterrupt
        return real(self, bound)

    with monkeypatch.context() as patched:
        patched.setattr(Start, "result", interrupted)
        with pytest.raises(KeyboardInterrupt):
            priced(tmp_path / "front")
    assert timed == ["exact", str(BOUNDS[0])]
    assert not (tmp_path / "front" / "5dB").exists()
    priced(tmp_path / "front")
    assert timed == ["exact", *map(str, BOUNDS)]


@pytest.mark.slow
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("number", range(1, 6))
def test_a_kill_leaves_nothing_half_written(timed: list[str], tmp_path: Path, number: int, before: bool) -> None:
    bounds = BOUNDS[1:]
    killed_at(number, before, lambda: priced(tmp_path / "front", bounds) and None, can_exchange=True)
    there = {path.name for path in (tmp_path / "front").glob("*dB")}
    for name in there:
        assert depthwise_taps(load(tmp_path / "front" / name)) > 0
    data = priced(tmp_path / "front", bounds)
    assert [one.name for one in data.points] == ["original", "exact", "5dB"]
    names = {path.name for path in (tmp_path / "front").iterdir()}
    assert names == {"exact", "5dB", "front.json", "front.md", "front.html"}


OTHERS: dict[str, Callable[[Path], Any]] = {
    "weights": lambda out: priced(out, network=tower(1)),
    "inputs": lambda out: front(tower(), ROADMAP, X, [X, X + 1], out=out, bounds=BOUNDS),
    "roadmap": lambda out: front(tower(), ROADMAP.with_target("eager", 2), X, calibration(), out=out, bounds=BOUNDS),
    "measure": lambda out: priced(out, [Bound("agreement", 0.5)]),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS.keys())
@pytest.mark.sample(2)
def test_another_front_is_replaced_only_where_that_is_said(
    timed: list[str], tmp_path: Path, other: Callable[[Path], Any]
) -> None:
    out = tmp_path / "front"
    priced(out)
    was = {path: path.read_bytes() for path in out.rglob("*.safetensors")}
    with raising(BundleError, "exists", "--overwrite"):
        other(out)
    assert {path: path.read_bytes() for path in out.rglob("*.safetensors")} == was


@pytest.mark.slow
def test_overwriting_leaves_nothing_of_the_other_one(timed: list[str], tmp_path: Path) -> None:
    out = tmp_path / "front"
    priced(out)
    priced(out, BOUNDS[1:], network=tower(1), overwrite=True)
    assert {path.name for path in out.iterdir() if path.is_dir()} == {"exact", "5dB"}
    assert len(timed) == 5


def test_a_folder_with_something_else_is_never_replaced(timed: list[str], tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").touch()
    (tmp_path / "file").touch()
    for name, content in (("list", "[]"), ("cut off", '{"identity'), ("another's", '{"identity": 3}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "front.json").write_text(content)
    for name, code in (("notes", "exists"), ("list", "exists"), ("cut off", "exists"), ("another's", "exists")):
        with raising(BundleError, code):
            priced(tmp_path / name, overwrite=True)
    with raising(BundleError, "wrong-kind"):
        priced(tmp_path / "file", overwrite=True)
    assert (tmp_path / "notes" / "mine.txt").exists() and timed == []


def test_other_bundles_are_measured_beside(timed: list[str], tmp_path: Path) -> None:
    whole = apply(tower(), [SepConvToPConv()], X)
    for folder in ("mine", "yours"):
        whole.save(tmp_path / folder / "5dB")
    beside = [tmp_path / "mine" / "5dB", tmp_path / "yours" / "5dB"]
    was = (beside[0] / "report.json").read_bytes()
    data = priced(tmp_path / "front", beside=beside)
    others = [one for one in data.points if one.kind == "other"]
    assert [one.bundle for one in others] == list(map(str, beside))
    assert len({one.name for one in data.points}) == len(data.points) == 6
    assert others[0].ratio == others[1].ratio < 1 and others[0].limit is None
    assert (beside[0] / "report.json").read_bytes() == was


def test_what_cannot_be_measured_beside_is_refused_before_the_work(timed: list[str], tmp_path: Path) -> None:
    with raising(ReportError, "report", "nowhere"):
        priced(tmp_path / "front", beside=[tmp_path / "nowhere"])
    assert timed == [] and not (tmp_path / "front").exists()


def test_a_network_that_the_engine_fails_on_is_left_out_and_said(
    timed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cost(module: torch.nn.Module) -> float:
        if depthwise_taps(module) < depthwise_taps(tower()):
            raise EngineError("it broke", code="failed")
        return depthwise_taps(module)

    invent_race(monkeypatch, cost)
    data = priced(tmp_path / "front")
    assert [one.name for one in data.points] == ["original", "exact", "100dB"]
    assert len(data.notes) == 1 and "5dB" in data.notes[0] and "it broke" in data.notes[0]


def test_memory_that_cannot_be_measured_is_not_known(
    timed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any) -> float:
        raise EngineError("its process was killed", code="failed")

    monkeypatch.setattr(frontier, "peak_memory", failing)
    data = priced(tmp_path / "front", BOUNDS[:1])
    assert [one.memory for one in data.points] == [None] * 3
    assert any("killed" in note for note in data.notes)


def test_bad_arguments(timed: list[str], tmp_path: Path) -> None:
    out = tmp_path / "front"
    with raising(CalibrationError, "ambiguous"):
        priced(out, [Bound("psnr", 40.0), Bound("agreement", 0.9)])
    with raising(CalibrationError, "needs-option", "max_loss"):
        priced(out, [Bound("loss", 0.1)])
    with raising(RoadmapError, "ambiguous", "told"):
        front(tower(), ROADMAP.with_target("eager", keep_if="told"), X, calibration(), out=out, bounds=BOUNDS)
    assert not out.exists()


@pytest.mark.slow
def test_every_point_is_trained_once(timed: list[str], tmp_path: Path) -> None:
    out = tmp_path / "front"
    data = priced(out, BOUNDS[1:], recover_minutes=0.02)
    assert [(one.name, one.trained) for one in data.points] == [("original", False), ("exact", False), ("5dB", True)]
    again = priced(out, BOUNDS[1:], recover_minutes=0.02)
    assert again == data
    assert len(read_report(out / "5dB").recoveries) == 1
    with raising(BundleError, "exists"):
        priced(out, BOUNDS[1:])
