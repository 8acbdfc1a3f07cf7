"""What a layer could become follows from what the passes say of themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from architectures import PMRID, NAFNet
from mofa_compiler import Roadmap
from mofa_compiler.analysis.anatomy import infer
from mofa_compiler.analysis.layers import Layer
from mofa_compiler.analysis.network import Network
from mofa_compiler.autotune.candidates import Candidate, Offers
from mofa_compiler.autotune.lowering_search import carried_out
from mofa_compiler.base.errors import RoadmapError
from mofa_compiler.bundle.recipe import architecture_hash
from mofa_compiler.frontend import capture
from mofa_compiler.nn.partial_conv import PConv2d
from mofa_compiler.passes import LowerPConv, NarrowHidden, SepConvToPConv, ShrinkKernels
from mofa_compiler.rewriting import Match, Pass, Replacement
from mofa_compiler.rewriting.roadmap import in_order
from tests.autotune.small import Tower

SEPARABLE = ["sepconv-to-pconv", "sepconv-to-pconv + widen-portion"]
DEPTHWISE = [f"{name} + pconv-to-pdwconv" for name in SEPARABLE]


def captured(model: nn.Module) -> Network:
    program = capture(model.eval(), torch.rand(1, 3, 32, 32), compare=False)
    return Network(program, infer(program))


@pytest.fixture(scope="module")
def pmrid() -> Network:
    return captured(PMRID())


@pytest.fixture(scope="module")
def nafnet() -> Network:
    return captured(NAFNet(width=4, enc_blk_nums=(1,), dec_blk_nums=(1,)))


@pytest.fixture(scope="module")
def tower() -> Network:
    return captured(Tower())


def names(offers: Offers, network: Network, path: str) -> list[str]:
    return [one.candidate.name for one in offers.attempts(network.layers[path], network)]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("enc1.0.conv1.depthwise", ["shrink-kernels"]),
        (
            "enc1.1.conv1.depthwise",
            [
                "shrink-kernels",
                "pointwise-first",
                "pointwise-first + shrink-kernels",
                "pointwise-first (contraction=1e-09, spatial=False)",
                *SEPARABLE,
                *DEPTHWISE,
            ],
        ),
        (
            "dec1.upsample",
            [
                "decouple-upsampling (pconv)",
                "decouple-upsampling (pconv) + pconv-to-pdwconv",
                "decouple-upsampling (separable)",
                "decouple-upsampling (dense)",
            ],
        ),
    ],
)
def test_of_pmrid_under_a_bound(pmrid: Network, path: str, expected: list[str]) -> None:
    offers = Offers(Roadmap.load("mofa"), "onnxruntime", bounded=True)
    assert names(offers, pmrid, path) == ["original", *expected]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("encoders.0.0.conv2", [*SEPARABLE, *DEPTHWISE]),
        (
            "downs.0",
            [
                "decouple-downsampling (pconv)",
                "decouple-downsampling (pconv) + pconv-to-pdwconv",
                "decouple-downsampling (separable)",
                "decouple-downsampling (dense)",
            ],
        ),
    ],
)
def test_of_nafnet(nafnet: Network, path: str, expected: list[str]) -> None:
    assert names(Offers(Roadmap.load("paper-nafnet"), "eager"), nafnet, path) == ["original", *expected]


@pytest.mark.parametrize(
    ("engine", "only_there"), [("eager", {"in-place"}), ("cuda", {"fused"}), ("onnxruntime", set[str]())]
)
def test_forms_are_those_that_the_engine_can_use(engine: str, only_there: set[str]) -> None:
    separable = [nn.Conv2d(8, 8, 5, padding=2, groups=8), nn.Conv2d(8, 8, 1)]
    network = captured(nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), *separable, nn.Conv2d(8, 3, 1)))
    layer = next(layer for layer in network.layers.values() if layer.is_depthwise)
    offers = Offers(Roadmap([SepConvToPConv()]), engine)
    candidate = Candidate("sepconv-to-pconv", (SepConvToPConv(),))
    attempt = next(one for one in offers.attempts(layer, network) if one.candidate == candidate)
    forms = [one.candidate.name for one in offers.forms(attempt, layer)]
    always = {"two-products", "two-slices", "born-apart", "merged"}
    assert set(forms) == {f"sepconv-to-pconv + lower-pconv ({form})" for form in always | only_there}
    given = Offers(Roadmap([SepConvToPConv(), LowerPConv(form="merged")]), engine)
    assert [one.candidate.passes[-1] for one in given.forms(attempt, layer)] == [LowerPConv(form="merged")]


def test_whole_network_passes_are_those_that_the_engine_can_use() -> None:
    always = ["lower-layer-norm", "merge-linear", "lower-gates", "lower-shuffle"]
    assert [one.name for one in Offers(Roadmap([]), "onnxruntime").whole] == always
    assert [one.name for one in Offers(Roadmap([]), "eager").whole] == [*always, "channels-last"]


def test_what_is_decided_is_what_was_measured(nafnet: Network) -> None:
    """The passes of a candidate make the same of the layer when they stand in the roadmap's order."""
    offers = Offers(Roadmap.load("mofa"), "eager", bounded=True)
    for path in ("middle_blks.0.conv2", "ups.0.0"):
        for one in offers.attempts(nafnet.layers[path], nafnet):
            assert isinstance(one.network, Network)
            decided = Roadmap(in_order(offers.merged({one.candidate: [path]})))
            made = carried_out(nafnet, decided)
            assert architecture_hash(made.program) == architecture_hash(one.network.program), one.candidate.name


def test_a_pass_that_costs_no_time_is_no_choice(tower: Network) -> None:
    """Kernels are restored wherever channels were widened: that changes weights alone."""
    offers = Offers(Roadmap.load("mofa"), "onnxruntime")
    found = {one.candidate.name: one.candidate for one in offers.attempts(tower.layers["blocks.1.wide.0"], tower)}
    assert [one.name for one in found[SEPARABLE[1]].passes] == [*SEPARABLE[1].split(" + "), "restore-kernels"]
    assert [one.name for one in found[SEPARABLE[0]].passes] == [SEPARABLE[0]]


def test_layers_that_a_pass_does_not_name_are_left_alone(tower: Network) -> None:
    offers = Offers(Roadmap([SepConvToPConv(layers=("blocks.0.*",))]), "eager")
    assert "sepconv-to-pconv" in names(offers, tower, "blocks.0.wide.0")
    assert "sepconv-to-pconv" not in names(offers, tower, "blocks.1.wide.0")


def test_a_network_of_partial_convolutions_has_their_forms(tower: Network) -> None:
    partial = carried_out(tower, [SepConvToPConv()])
    found = names(Offers(Roadmap([]), "onnxruntime"), partial, "blocks.1.wide.0")
    assert "lower-pconv (merged)" in found


@dataclasses.dataclass(frozen=True)
class Plain(Pass):
    """A pass of before there were phases: it says nothing of itself."""

    name: ClassVar[str] = "plain"

    size: int = 1

    def match(self, layer: Layer, network: Network) -> Match | None:
        return Match() if layer.is_depthwise and layer.module.kernel_size != (self.size, self.size) else None

    def build(self, layer: Layer, modules: Mapping[str, nn.Module]) -> Replacement:
        channels, padding = layer.channels, self.size // 2
        return Replacement(nn.Conv2d(channels, channels, self.size, padding=padding, groups=channels))


@dataclasses.dataclass(frozen=True)
class Sized(Plain):
    """The same with alternatives of its own."""

    def alternatives(self, layer: Layer, network: Network, *, bounded: bool = False) -> Sequence[Pass]:
        return [Sized(size=size) for size in (1, 3, 5)]


@pytest.mark.parametrize(("pass_", "expected"), [(Plain(), ["plain"]), (Sized(), ["plain", "plain (size=3)"])])
def test_a_pass_of_another_package_takes_part(tower: Network, pass_: Pass, expected: list[str]) -> None:
    found = names(Offers(Roadmap([pass_]), "eager"), tower, "blocks.1.wide.0")
    assert [name for name in found if "plain" in name] == expected


WIDTHS = [f"narrow-hidden{which}" for which in ("", " (keep=1/2)", " (keep=5/8)", " (keep=7/8)")]


def test_hidden_channels_are_offered_where_a_bound_decides(nafnet: Network) -> None:
    wide, path = captured(NAFNet(width=32, enc_blk_nums=(1,), dec_blk_nums=(1,))), "middle_blks.0.conv1"
    assert names(Offers(Roadmap([]), "eager", bounded=True), wide, path) == ["original", *WIDTHS]
    assert names(Offers(Roadmap([]), "eager"), wide, path) == ["original"]
    assert names(Offers(Roadmap([NarrowHidden()]), "eager"), wide, path) == ["original", WIDTHS[0]]
    assert names(Offers(Roadmap([]), "eager", bounded=True), nafnet, path) == ["original", WIDTHS[1]]


def test_nothing_else_is_done_to_a_layer_whose_channels_are_taken_away() -> None:
    """Every width with every other pass would be many, and what it makes may be rewritten where it is read."""
    layers = [
        nn.Conv2d(3, 16, 1),
        nn.Conv2d(16, 64, 5, padding=2),
        nn.ReLU(),
        nn.Conv2d(64, 16, 1),
        nn.Conv2d(16, 3, 1),
    ]
    found = names(Offers(Roadmap.load("mofa"), "eager", bounded=True), captured(nn.Sequential(*layers)), "1")
    assert [name for name in found if "narrow-hidden" in name] == WIDTHS
    assert {"shrink-kernels", "sepconv-to-pconv"} <= set(found)


@pytest.mark.parametrize("order", [1, -1])
def test_channels_go_before_what_they_run_through_is_replaced(order: int) -> None:
    """Whichever of them the roadmap has first, where something is chosen on both sides."""
    network = captured(NAFNet(width=16, enc_blk_nums=(1,), dec_blk_nums=(1,)))
    narrow, partial = NarrowHidden(keep=0.5), SepConvToPConv()
    block = network.layers["middle_blks.0.conv1"], network.layers["middle_blks.0.conv2"]
    offers = Offers(Roadmap([narrow, partial][::order]), "eager", bounded=True)
    chosen = {Candidate("n", (narrow,)): [block[0].path], Candidate("p", (partial,)): [block[1].path]}
    decided = in_order(offers.merged(chosen))
    assert [one.name for one in decided] == ["narrow-hidden", "sepconv-to-pconv"]
    after = carried_out(network, decided)
    assert [after.layers[one.path].channels for one in block] == [32, 32]
    assert isinstance(after.layers[block[1].path].module, PConv2d)


def test_what_approximates_the_whole_network_is_not_decided_layer_by_layer() -> None:
    class Whole(Plain):
        per_layer: ClassVar[bool] = False

    roadmap = Roadmap([Whole()])
    assert Offers(roadmap, "onnxruntime").whole[0] == Whole()
    with pytest.raises(RoadmapError, match="plain"):
        Offers(roadmap, "onnxruntime", bounded=True)


def test_a_pass_that_cannot_be_built_says_why(tower: Network) -> None:
    class Broken(Plain):
        def build(self, layer: Layer, modules: Mapping[str, nn.Module]) -> Any:
            return Replacement(nn.Conv2d(1, 1, 1))

    offers = Offers(Roadmap([Broken()]), "eager")
    failed = [one for one in offers.attempts(tower.layers["blocks.1.wide.0"], tower) if isinstance(one.network, str)]
    assert [one.candidate.name for one in failed] == ["plain"]


def test_one_roadmap_for_all_layers(tower: Network) -> None:
    offers = Offers(Roadmap([SepConvToPConv()]), "eager")
    partial = Candidate("a", (SepConvToPConv(),))
    shrunk = Candidate("b", (ShrinkKernels(),))
    merged = offers.merged({shrunk: ["blocks.0.wide.0"], partial: ["blocks.1.wide.0", "blocks.2.wide.0"]})
    assert [one.name for one in merged] == ["sepconv-to-pconv", "shrink-kernels"]
    assert merged[0].layers == ("blocks.1.wide.0", "blocks.1.wide.0.*", "blocks.2.wide.0", "blocks.2.wide.0.*")
