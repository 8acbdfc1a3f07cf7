from __future__ import annotations

import dataclasses
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, ClassVar

import hypothesis
import pydantic.dataclasses
import pytest
from pydantic import ConfigDict, Field

from mofa_compiler import Roadmap
from mofa_compiler.base.errors import RoadmapError
from mofa_compiler.base.option_types import FROZEN
from mofa_compiler.passes import DecoupleUpsampling, PConvToPDWConv, SepConvToPConv, WidenPortion
from mofa_compiler.rewriting.pass_api import Pass
from mofa_compiler.rewriting.registry import available
from mofa_compiler.rewriting.roadmap import at_layers, in_order, presets
from tests.raising import raising


class Nothing(Pass):
    """What the passes below have in common: nothing is matched."""

    name: ClassVar[str] = "mine"

    def match(self, layer: Any, network: Any) -> None:
        return None

    def build(self, layer: Any, modules: Any) -> Any:
        raise AssertionError


@dataclasses.dataclass(frozen=True)
class Plain(Nothing):
    keep: float = 0.5
    found: int = dataclasses.field(default=0, init=False)


@pydantic.dataclasses.dataclass(frozen=True)
class Validated(Nothing):
    keep: float = 0.5


@pydantic.dataclasses.dataclass(frozen=True, config=FROZEN)
class Forbidding(Nothing):
    keep: float = 0.5


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="allow"))
class Allowing(Nothing):
    keep: float = 0.5


@pydantic.dataclasses.dataclass(frozen=True)
class Aliased(Nothing):
    keep: Annotated[float, Field(alias="share")] = 0.5


class Undecorated(Validated):
    """Derived without a decorator, so that `more` is no field."""

    more: float = 0.5


KINDS = (Plain, Validated, Forbidding, Allowing, Aliased, Undecorated)


@pytest.mark.parametrize("name", presets())
def test_presets_round_trip(name: str):
    roadmap = Roadmap.load(name)
    assert roadmap.name == name
    assert roadmap.description
    assert Roadmap.from_toml(roadmap.to_toml()) == roadmap


def test_values_of_every_type_round_trip():
    roadmap = Roadmap(
        [
            SepConvToPConv(portion=Fraction(3, 8), kinds=("dense",)),
            WidenPortion(where=("middle", 'a"\\b*'), cheap_below=0.3),
        ],
        name="mine",
        description="two\nlines",
    )
    assert Roadmap.from_toml(roadmap.to_toml()) == roadmap


def test_portion_in_all_its_spellings():
    assert SepConvToPConv(portion="1/4") == SepConvToPConv(portion=0.25) == SepConvToPConv()  # type: ignore[arg-type]


def test_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('[[pass]]\nname = "pconv-to-pdwconv"\nthreshold = 8\n')
    roadmap = Roadmap.load(path)
    assert roadmap.name == "mine"
    assert roadmap.passes == (PConvToPDWConv(threshold=8),)


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("[[pass]\nname = 1", ("damaged", "line 1")),
        ('[[pass]]\nname = "sepconv-to-pconf"', ("unknown-name", "pass 1", "'sepconv-to-pconf'", "'sepconv-to-pconv'")),
        ('[[pass]]\nname = "sepconv-to-pconv"\nportoin = 0.5', ("unknown-option", "'portoin'", "'portion'")),
        ('[[pass]]\nname = "sepconv-to-pconv"\nportion = 1.5', ("bad-value", "portion = 1.5")),
        (
            '[[pass]]\nname = "sepconv-to-pconv"\nkinds = ["deep"]',
            ("bad-value", "kinds = 'deep'", "'depthwise' or 'dense'"),
        ),
        ('[[pass]]\nname = "pconv-to-pdwconv"\nthreshold = -1', ("bad-value", "threshold = -1")),
        ("[[pass]]\nthreshold = 1", ("needs-option", "name")),
        ("[pass]\nname = 1", ("bad-value", "[[pass]]")),
        ("passes = []", ("unknown-option", "'passes'", "'pass'")),
    ],
)
def test_malformed(toml: str, said: tuple[str, ...]):
    with raising(RoadmapError, *said):
        Roadmap.from_toml(toml)


def test_unknown_preset_names_the_nearest():
    with raising(RoadmapError, "unknown-name", "'paper-pmird'", "'paper-pmrid'"):
        Roadmap.load("paper-pmird")
    with raising(RoadmapError, "not-found", "missing.toml"):
        Roadmap.load("missing.toml")


@pytest.mark.parametrize(
    "passes",
    [
        [PConvToPDWConv(), SepConvToPConv()],
        [WidenPortion(), SepConvToPConv()],
        [SepConvToPConv(), PConvToPDWConv(), DecoupleUpsampling()],
    ],
)
def test_senseless_order_names_both(passes):
    with raising(RoadmapError, "order") as caught:
        Roadmap(passes)
    assert passes[-1].name in str(caught.value)
    assert passes[-2].name in str(caught.value)


@hypothesis.settings(deadline=None, max_examples=50)
@hypothesis.given(hypothesis.strategies.permutations(sorted(available())))
def test_passes_are_put_in_an_order_that_a_roadmap_takes(names: list[str]):
    ordered = in_order([available()[name]() for name in names])
    roadmap = Roadmap(ordered)
    assert sorted(pass_.name for pass_ in roadmap) == sorted(names)
    assert in_order(ordered) == ordered


def test_what_is_in_order_stays_as_it_is():
    for name in presets():
        passes = list(Roadmap.load(name))
        assert [pass_.name for pass_ in in_order(passes)] == [pass_.name for pass_ in passes]


def test_layers_are_named_with_what_is_put_below_them():
    globs = at_layers(["a[0]", "b", "b"])
    named = SepConvToPConv(layers=globs)
    assert len(globs) == 4
    assert all(named.looks_at(path) for path in ("a[0]", "a[0].pconv", "b", "b.pointwise"))
    assert not any(named.looks_at(path) for path in ("a0", "a0.pconv", "bb"))


def test_not_a_pass():
    with raising(RoadmapError, "wrong-kind"):
        Roadmap([SepConvToPConv])  # type: ignore[list-item]


def test_bad_option_in_python():
    with pytest.raises(ValueError, match="threshold"):
        PConvToPDWConv(threshold="many")  # type: ignore[arg-type]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type[Pass]:
    """A pass of another package, in each way in which its author may have written it."""
    monkeypatch.setattr("mofa_compiler.rewriting.roadmap.available", lambda: {"mine": request.param})
    return request.param


def test_options_of_any_pass_are_read_and_round_trip(kind: type[Pass]):
    roadmap = Roadmap.from_toml('[[pass]]\nname = "mine"\nkeep = 0.9\nlayers = ["a.*"]')
    assert type(roadmap.passes[0]) is kind
    assert (roadmap.passes[0].keep, roadmap.passes[0].layers) == (0.9, ("a.*",))  # type: ignore[attr-defined]
    assert Roadmap.from_toml(roadmap.to_toml()) == roadmap


@pytest.mark.parametrize(
    ("option", "meant"), [("keeep", "keep"), ("layer", "layers"), ("found", None), ("share", None), ("more", None)]
)
def test_no_pass_takes_an_option_that_is_none_of_its_fields(
    kind: type[Pass], option: str, meant: str | None, tmp_path: Path
):
    path = tmp_path / "mine.toml"
    path.write_text(f'[[pass]]\nname = "mine"\n{option} = 0.9\n')
    with pytest.raises(RoadmapError) as caught:
        Roadmap.load(path)
    assert caught.value.code == "unknown-option"
    assert all(
        name in str(caught.value)
        for name in (f"{path}, pass 1", "mine", repr(option), repr(meant) if meant else "keep")
    )


def test_a_value_that_does_not_fit_is_refused_for_any_pass(kind: type[Pass]):
    with raising(RoadmapError, "bad-value", "mine", "keep"):
        Roadmap.from_toml('[[pass]]\nname = "mine"\nkeep = "much"')
