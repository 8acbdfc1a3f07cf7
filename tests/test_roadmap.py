from __future__ import annotations

from fractions import Fraction

import pytest

from mofa_compiler import Roadmap
from mofa_compiler.errors import RoadmapError
from mofa_compiler.passes import DecoupleUpsampling, PConvToPDWConv, SepConvToPConv, WidenPortion
from mofa_compiler.roadmap import presets


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
    ("toml", "message"),
    [
        ("[[pass]\nname = 1", r"malformed TOML.*line 1"),
        ('[[pass]]\nname = "sepconv-to-pconf"', r"pass 1: there is no pass 'sepconv-to-pconf' \(did you mean 'sepconv"),
        ('[[pass]]\nname = "sepconv-to-pconv"\nportoin = 0.5', r"has no option 'portoin' \(did you mean 'portion'\?\)"),
        ('[[pass]]\nname = "sepconv-to-pconv"\nportion = 1.5', r"portion = 1.5: .*less than or equal to 1"),
        ('[[pass]]\nname = "sepconv-to-pconv"\nkinds = ["deep"]', r"kinds = 'deep': .*'depthwise' or 'dense'"),
        ('[[pass]]\nname = "pconv-to-pdwconv"\nthreshold = -1', r"threshold = -1: .*greater than or equal to 0"),
        ("[[pass]]\nthreshold = 1", "needs a name"),
        ("[pass]\nname = 1", r"under its own \[\[pass\]\]"),
        ("passes = []", r"unknown key 'passes' \(did you mean 'pass'\?\)"),
    ],
)
def test_malformed(toml: str, message: str):
    with pytest.raises(RoadmapError, match=message):
        Roadmap.from_toml(toml)


def test_unknown_preset_names_the_nearest():
    with pytest.raises(RoadmapError, match=r"no roadmap 'paper-pmird' \(did you mean 'paper-pmrid'\?\)"):
        Roadmap.load("paper-pmird")
    with pytest.raises(RoadmapError, match=r"no roadmap file missing\.toml"):
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
    with pytest.raises(RoadmapError, match=r"\(pass \d\) comes before .* \(pass \d\).*put .* first") as caught:
        Roadmap(passes)
    assert passes[-1].name in str(caught.value)
    assert passes[-2].name in str(caught.value)


def test_not_a_pass():
    with pytest.raises(RoadmapError, match="is not a pass; give an instance"):
        Roadmap([SepConvToPConv])  # type: ignore[list-item]


def test_bad_option_in_python():
    with pytest.raises(ValueError, match="threshold"):
        PConvToPDWConv(threshold="many")  # type: ignore[arg-type]
